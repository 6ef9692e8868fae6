"""GeoJSON: what is read, what is refused, and how places are found in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from chapkit_flows.data.geo import check_geo, read_geo
from chapkit_flows.errors import InvalidGeo


def feature(**parts: Any) -> dict[str, Any]:
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": None} | parts


def collection(*features: dict[str, Any]) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": list(features)}).encode()


@pytest.mark.parametrize(
    "parts",
    [
        {"id": "7"},
        {"id": 7},
        {"properties": {"id": 7}},
        {"properties": {"location": "7"}},
        {"id": "x", "properties": {"code": "7"}},
        {"properties": {"id": None, "name": "7"}},
    ],
)
def test_a_place_is_found_by_id_or_property(parts: dict[str, Any]) -> None:
    """The id of a feature, or one of its naming properties, stands for a location; numbers are compared as text."""
    assert () == check_geo(read_geo(collection(feature(**parts)), name="geo"), ["7"])


def test_places_without_a_feature_are_named() -> None:
    """Up to five lacking locations are named, and all are counted; spare features are no finding."""
    geo = read_geo(b"\xef\xbb\xbf" + collection(feature(id="a"), feature(id="spare")), name="geo")
    (found,) = check_geo(geo, ["a", *"bcdefgh"])
    assert ("error", "geo_location_mismatch", "geo") == (found.severity, found.code, found.field)
    assert "7 of 8 locations: 'b', 'c', 'd', 'e', 'f' and 2 more" in found.message


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("my map is not JSON: Expecting value: line 1 column 1", b""),
        ("my map is not JSON", b"<kml/>"),
        ("my map is not JSON", b'{"type": "FeatureCollection", "features": ['),
        ("my map is not JSON", b"[" * 200_000),
        ("my map is not JSON: Exceeds the limit", b'{"type": ' + b"9" * 5000 + b"}"),
        ("my map is not UTF-8", b'{"type": "\xe9"}'),
        ("my map has the type 'list'", b"[]"),
        ("my map has the type None", b"{}"),
        ("my map has the type 'Feature'", json.dumps(feature()).encode()),
        ("my map is not valid GeoJSON: features: Field required", b'{"type": "FeatureCollection"}'),
        ("my map is not valid GeoJSON: features.1.geometry", collection(feature(), feature(geometry={"type": "Blob"}))),
        ("my map has no features", collection()),
    ],
)
def test_refused_geo(message: str, content: bytes) -> None:
    """What is no FeatureCollection is refused by a message that names it and says where it is wrong."""
    with pytest.raises(InvalidGeo) as caught:
        read_geo(content, name="my map")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("table", "polygons"),
    [
        ("laos_subset/laos_subset.csv", "laos_subset/laos_subset.geojson"),
        ("vnm_dengue_monthly/vietnam_monthly.csv", "vnm_dengue_monthly/vietnam_monthly.geojson"),
    ],
)
def test_real_polygons(table: str, polygons: str, shared: Path) -> None:
    """The polygons of the real data sets match their tables."""
    locations = pd.read_csv(shared / table)["location"].unique().tolist()
    geo = read_geo((shared / polygons).read_bytes(), name=polygons)
    assert () == check_geo(geo, locations)
    assert ["nowhere"] == [place for place in [*locations, "nowhere"] if check_geo(geo, [place])]
