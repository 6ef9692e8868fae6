"""Forecasts as numbers, and as Vega-Lite charts drawn without a browser or a network."""

from __future__ import annotations

import datetime
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import vl_convert

MAX_PLACES = 12
_VEGA_LITE = "5.21"
_YEAR = datetime.timedelta(days=366)
_QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
_OBSERVED, _MEDIAN, _HALF, _MOST = "Observed", "Median forecast", "50 % interval", "90 % interval"
_POINT = "Forecast"
_COLOURS = {_OBSERVED: "#333333", _MEDIAN: "#1f5fa8", _POINT: "#1f5fa8", _HALF: "#8fbbe6", _MOST: "#cfe1f5"}

Spec = dict[str, Any]


def quantile_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """The forecasts of the first 12 places as `time_period`, `location`, `q05`, `q25`, `median`, `q75`, `q95`.

    Args:
        predictions: `time_period`, `location`, then `sample_0` … or `prediction`.
    """
    places = predictions["location"].drop_duplicates().head(MAX_PLACES)
    shown = predictions[predictions["location"].isin(places)].reset_index(drop=True)
    values = shown.drop(columns=["time_period", "location"]).to_numpy(dtype="float64")
    quantiles = np.quantile(values, list(_QUANTILES.values()), axis=1)
    return shown[["time_period", "location"]].assign(**dict(zip(_QUANTILES, quantiles, strict=True)))


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
        A Vega-Lite spec with its data inside: the first 12 places, and before the forecast the last year, or four
        times the span of the forecast if that is longer.
    """
    table = quantile_table(predictions)
    places = table["location"].drop_duplicates().tolist()
    ahead = _with_dates(table, start_of).rename(columns={"location": "place"}).drop(columns="time_period")
    observed = _observed(historic[historic["location"].isin(places)], target, start_of)
    recent = _recent(observed, ahead["date"])
    layers = _layers(target, is_point=predictions.shape[1] == 3, is_single=ahead["date"].nunique() == 1)
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": _rows(recent) + _rows(ahead)},
        "facet": {"field": "place", "type": "nominal", "title": None, "sort": places, "header": {"labelFontSize": 12}},
        "columns": min(3, len(places)),
        "spec": {"width": 180, "height": 120, "layer": layers},
        # An axis for each panel: a shared one is drawn once per column, also where a column ends with no panel.
        "resolve": {"scale": {"y": "independent"}, "axis": {"x": "independent", "y": "independent"}},
        "config": {"background": "white", "font": "sans-serif", "axis": {"labelFontSize": 10, "titleFontSize": 10}},
    }


def render_png(spec: Mapping[str, Any], *, scale: float = 2.0) -> bytes:
    """Draw a Vega-Lite spec as a PNG picture, by default with two dots for each of its pixels."""
    png: bytes = vl_convert.vegalite_to_png(json.dumps(spec), vl_version=_VEGA_LITE, scale=scale)
    return _pack(png)


def _pack(png: bytes) -> bytes:
    """The same picture in a fifth of the bytes: vl-convert compresses for speed."""
    start, pixels, other = 8, b"", []
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4])
        if png[start + 4 : start + 8] == b"IDAT":
            pixels += png[start + 8 : end - 4]
        else:
            other.append(png[start:end])
        start = end
    content = b"IDAT" + zlib.compress(zlib.decompress(pixels), 9)
    chunk = (len(content) - 4).to_bytes(4) + content + zlib.crc32(content).to_bytes(4)
    return b"".join([png[:8], *other[:-1], chunk, other[-1]])


def _layers(target: str, *, is_point: bool, is_single: bool) -> list[Spec]:
    """The layers from back to front; their names are the legend."""
    # An area over one period has no width.
    band: Spec = {"type": "rule", "strokeWidth": 9} if is_single else {"type": "area"}
    middle = _POINT if is_point else _MEDIAN
    names = [_OBSERVED, middle] if is_point else [_OBSERVED, middle, _HALF, _MOST]
    line: Spec = {"type": "line", "strokeWidth": 2, "point": {"size": 24}}
    layers = [
        _layer(band, _MOST, ("q05", "q95"), target, names),
        _layer(band, _HALF, ("q25", "q75"), target, names),
        _layer(line, middle, ("median",), target, names),
        _layer({"type": "line", "strokeWidth": 1.5}, _OBSERVED, ("observed",), target, names),
    ]
    return layers[2:] if is_point else layers


def _layer(mark: Spec, name: str, fields: tuple[str, ...], target: str, names: list[str]) -> Spec:
    colours = {"domain": names, "range": [_COLOURS[each] for each in names]}
    legend = {"title": None, "orient": "top", "symbolType": "square", "symbolSize": 120, "labelFontSize": 12}
    encoding: Spec = {
        # In UTC, as a date without a time is read: in local time the first of a month can be the day before.
        "x": {
            "field": "date",
            "type": "temporal",
            "title": None,
            "scale": {"type": "utc"},
            "axis": {"format": "%b %Y", "tickCount": 3, "labelOverlap": True},
        },
        "y": {"field": fields[0], "type": "quantitative", "title": target},
        "color": {"datum": name, "scale": colours, "legend": legend},
    }
    if len(fields) > 1:
        encoding["y2"] = {"field": fields[1]}
    # Each layer draws only the rows that have its value; the others would add gaps to lines and areas.
    return {"mark": mark, "encoding": encoding, "transform": [{"filter": f"isValid(datum.{fields[0]})"}]}


def _observed(historic: pd.DataFrame, target: str, start_of: Callable[[str], datetime.date]) -> pd.DataFrame:
    if target not in historic.columns:
        return pd.DataFrame({"place": [], "date": [], "observed": []})
    frame = _with_dates(historic, start_of).rename(columns={"location": "place"})
    return frame[["place", "date"]].assign(observed=frame[target].astype("float64")).dropna()


def _recent(observed: pd.DataFrame, ahead: pd.Series[Any]) -> pd.DataFrame:
    """The last year before the forecast, in which the season shows; more if the forecast reaches far."""
    if observed.empty:
        return observed
    end = min(observed["date"].max(), ahead.min())
    recent: pd.DataFrame = observed[observed["date"] >= end - max(_YEAR, 4 * (ahead.max() - ahead.min()))]
    return recent


def _with_dates(frame: pd.DataFrame, start_of: Callable[[str], datetime.date]) -> pd.DataFrame:
    return frame.assign(date=frame["time_period"].map(start_of))


def _rows(frame: pd.DataFrame) -> list[Spec]:
    written = frame.assign(date=[day.isoformat() for day in frame["date"]])
    return cast(list[Spec], written.to_dict(orient="records"))
