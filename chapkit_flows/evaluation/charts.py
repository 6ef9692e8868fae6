"""Forecast charts as Vega-Lite specs, drawn without a browser or a network."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import vl_convert

MAX_PLACES = 12
_PERIODS_BEFORE = 36
_VEGA_LITE = "5.21"

Spec = dict[str, Any]


def forecast_spec(
    historic: pd.DataFrame, predictions: pd.DataFrame, *, target: str, start_of: Callable[[str], datetime.date]
) -> Spec:
    """A panel per place: what was observed, the median forecast, and its 50 and 90 % intervals.

    Args:
        historic: `time_period`, `location` and perhaps the target.
        predictions: `time_period`, `location`, then `sample_0` … or `prediction`.
        target: The observed column.
        start_of: The first day of a period.

    Returns:
        A Vega-Lite spec with its data inside; the first 12 places, and the last 36 periods before the forecast.
    """
    places = predictions["location"].drop_duplicates().head(MAX_PLACES).tolist()
    bands = _bands(predictions[predictions["location"].isin(places)], start_of)
    observed = _observed(historic[historic["location"].isin(places)], target, start_of)
    x = {"field": "date", "type": "temporal", "title": None}
    layers: list[Spec] = [
        _layer({"type": "area", "opacity": 0.2}, x, "q05", y2="q95"),
        _layer({"type": "area", "opacity": 0.35}, x, "q25", y2="q75"),
        _layer({"type": "line", "strokeWidth": 2, "point": {"size": 18}}, x, "median", title=target),
        _layer({"type": "line", "color": "#333", "strokeWidth": 1.2}, x, "observed"),
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": observed + bands},
        "facet": {"field": "place", "type": "nominal", "title": None, "sort": places},
        "columns": min(3, len(places)),
        "spec": {"width": 240, "height": 130, "layer": layers},
        "resolve": {"scale": {"y": "independent"}},
        "config": {"background": "white", "font": "sans-serif", "axis": {"labelFontSize": 9}},
    }


def render_png(spec: Mapping[str, Any], *, scale: float = 1.0) -> bytes:
    """Draw a Vega-Lite spec as a PNG picture."""
    png: bytes = vl_convert.vegalite_to_png(json.dumps(spec), vl_version=_VEGA_LITE, scale=scale)
    return png


def _layer(mark: Spec, x: Spec, y: str, *, y2: str | None = None, title: str | None = None) -> Spec:
    encoding: Spec = {"x": x, "y": {"field": y, "type": "quantitative", "title": title}}
    if y2:
        encoding["y2"] = {"field": y2}
    # Each layer draws only the rows that have its value; the others would add gaps to lines and areas.
    return {"mark": mark, "encoding": encoding, "transform": [{"filter": f"isValid(datum.{y})"}]}


def _bands(predictions: pd.DataFrame, start_of: Callable[[str], datetime.date]) -> list[Spec]:
    values = predictions.drop(columns=["time_period", "location"]).to_numpy(dtype="float64")
    names = ("q05", "q25", "median", "q75", "q95")
    quantiles = dict(zip(names, np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95], axis=1), strict=True))
    frame = pd.DataFrame({"place": predictions["location"], "date": _dates(predictions, start_of)}).assign(**quantiles)
    return _rows(frame)


def _observed(historic: pd.DataFrame, target: str, start_of: Callable[[str], datetime.date]) -> list[Spec]:
    if target not in historic.columns:
        return []
    recent = historic.groupby("location", sort=False).tail(_PERIODS_BEFORE)
    frame = pd.DataFrame(
        {"place": recent["location"], "date": _dates(recent, start_of), "observed": recent[target].astype("float64")}
    )
    return _rows(frame.dropna())


def _dates(frame: pd.DataFrame, start_of: Callable[[str], datetime.date]) -> pd.Series[str]:
    return frame["time_period"].map(lambda period: start_of(period).isoformat())


def _rows(frame: pd.DataFrame) -> list[Spec]:
    return cast(list[Spec], frame.to_dict(orient="records"))
