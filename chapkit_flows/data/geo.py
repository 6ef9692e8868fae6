"""Polygons: GeoJSON whose features stand for the places of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from geojson_pydantic import Feature, FeatureCollection
from pydantic import ValidationError

from chapkit_flows.errors import InvalidGeo
from chapkit_flows.refs import Diagnostic

_NAMING_PROPERTIES = ("id", "location", "code", "name")
_NAMED = 5  # places in a message


def read_geo(content: bytes, *, name: str) -> FeatureCollection[Any]:
    """Read a GeoJSON FeatureCollection.

    Args:
        content: UTF-8 text.
        name: What the messages call it.

    Raises:
        InvalidGeo: It is not JSON, or not a FeatureCollection with features.
    """
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidGeo(f"{name} is not UTF-8 text. Save the GeoJSON as UTF-8.") from error
    except (ValueError, RecursionError) as error:  # a ValueError that is not one of JSON: a number of 5000 digits
        raise InvalidGeo(f"{name} is not JSON: {error}. Export it as GeoJSON again.") from error
    kind = document.get("type") if isinstance(document, dict) else type(document).__name__
    if kind != "FeatureCollection":
        raise InvalidGeo(f"{name} has the type {kind!r}. Give a GeoJSON FeatureCollection, one feature per place.")
    try:
        collection: FeatureCollection[Any] = FeatureCollection.model_validate(document)
    except ValidationError as error:
        raise InvalidGeo(f"{name} is not valid GeoJSON: {_first_problem(error)}. Correct it.") from error
    if not collection.features:
        raise InvalidGeo(f"{name} has no features. Give one feature per place.")
    return collection


def check_geo(geo: FeatureCollection[Any], locations: Iterable[str]) -> tuple[Diagnostic, ...]:
    """Find the locations that no feature stands for, by its id or its property id, location, code or name."""
    known = {name for feature in geo.features for name in _names(feature)}
    wanted = list(locations)
    lacking = [location for location in wanted if location not in known]
    if not lacking:
        return ()
    shown = ", ".join(repr(location) for location in lacking[:_NAMED])
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    message = (
        f"geo has no feature for {len(lacking)} of {len(wanted)} locations: {shown}{more}. "
        "Set the id of each feature to the location it stands for."
    )
    return (Diagnostic.error("geo_location_mismatch", message, "geo"),)


def _names(feature: Feature[Any, Any]) -> set[str]:
    properties = feature.properties or {}
    values = [feature.id, *(properties.get(key) for key in _NAMING_PROPERTIES)]
    return {str(value) for value in values if value is not None}


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}"
