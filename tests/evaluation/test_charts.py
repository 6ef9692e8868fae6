"""Forecast charts explain themselves, and draw without a browser."""

from __future__ import annotations

import datetime
import json
import zlib
from typing import Any

import pandas as pd
import pytest
import vl_convert

from chapkit_flows.data.periods import period_from_ordinal, period_ordinal, period_start
from chapkit_flows.evaluation.charts import forecast_spec, quantile_table, render_png


def _grid(places: int, first: str, count: int) -> pd.DataFrame:
    start = period_ordinal(first)
    kind = "weekly" if "W" in first else "monthly"
    periods = [period_from_ordinal(start + step, kind) for step in range(count)]
    keys = [(period, f"place {place}") for place in range(places) for period in periods]
    return pd.DataFrame(keys, columns=["time_period", "location"])


def _historic(places: int, first: str, count: int) -> pd.DataFrame:
    return _grid(places, first, count).assign(cases=range(places * count))


def _predictions(places: int, first: str, count: int, samples: int = 21) -> pd.DataFrame:
    return _grid(places, first, count).assign(**{f"sample_{number}": number * 5.0 for number in range(samples)})


def _spec(historic: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Any]:
    return forecast_spec(historic, predictions, target="cases", start_of=period_start)


@pytest.fixture
def spec() -> dict[str, Any]:
    """Five places, five years of months behind and three months ahead."""
    return _spec(_historic(5, "2015-01", 60), _predictions(5, "2020-01", 3))


def _encodings(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [layer["encoding"] for layer in spec["spec"]["layer"]]


def test_legend_names_each_layer(spec: dict[str, Any]) -> None:
    """Each line and each shade is a name of the legend."""
    names = [encoding["color"]["datum"] for encoding in _encodings(spec)]
    assert {"Observed", "Median forecast", "50 % interval", "90 % interval"} == set(names)
    assert all(set(names) == set(encoding["color"]["scale"]["domain"]) for encoding in _encodings(spec))


def test_axes_say_what_they_show(spec: dict[str, Any]) -> None:
    """The y axis is titled with the target; each panel has an x axis, and nothing else has one."""
    assert {"cases"} == {encoding["y"]["title"] for encoding in _encodings(spec)}
    assert "independent" == spec["resolve"]["axis"]["x"]


@pytest.mark.parametrize(
    ("historic", "predictions", "first"),
    [
        (("2015-01", 60), ("2020-01", 3), "2018-12-01"),
        (("2015-01", 60), ("2020-01", 12), "2016-04-01"),
        (("2019-06", 7), ("2020-01", 3), "2019-06-01"),
        (("2018-W01", 104), ("2020-W01", 2), "2018-12-24"),
        (("2010-01", 60), ("2020-01", 3), "2013-12-01"),
    ],
    ids=["a year", "four times a long horizon", "all of a short history", "a year of weeks", "before a gap"],
)
def test_limits_history(historic: tuple[str, int], predictions: tuple[str, int], first: str) -> None:
    """The history is a year, in which the season shows, or four times the span of the forecast."""
    values = _spec(_historic(1, *historic), _predictions(1, *predictions))["data"]["values"]
    assert first == min(value["date"] for value in values)


def test_dates_are_read_as_they_are_drawn(spec: dict[str, Any]) -> None:
    """The first of a month is not drawn as the day before it where the clock is behind UTC."""
    assert {"utc"} == {encoding["x"]["scale"]["type"] for encoding in _encodings(spec)}


def test_single_number_has_no_intervals() -> None:
    """A model that returns one number per place and period gets a line, without shades that say it is certain."""
    predictions = _predictions(1, "2020-01", 3, samples=1).rename(columns={"sample_0": "prediction"})
    names = [each["color"]["datum"] for each in _encodings(_spec(_historic(1, "2019-01", 12), predictions))]
    assert ["Forecast", "Observed"] == names


def test_single_period_shows_its_intervals() -> None:
    """The intervals of a forecast of one period are bars, as an area over one period has no width."""
    spec = _spec(_historic(1, "2019-01", 12), _predictions(1, "2020-01", 1))
    assert ["rule", "rule", "line", "line"] == [layer["mark"]["type"] for layer in spec["spec"]["layer"]]


def test_draws_without_observations() -> None:
    """Historic data without the target gives a chart of the forecast alone."""
    spec = _spec(_historic(2, "2019-01", 12).drop(columns="cases"), _predictions(2, "2020-01", 3))
    assert {datetime.date(2020, month, 1).isoformat() for month in (1, 2, 3)} == {
        value["date"] for value in spec["data"]["values"]
    }
    assert render_png(spec).startswith(b"\x89PNG")


def test_picture_is_small_and_whole(spec: dict[str, Any]) -> None:
    """The pixels of a picture are those that were drawn, in less than half of the bytes."""
    drawn = vl_convert.vegalite_to_png(json.dumps(spec), vl_version="5.21", scale=2.0)
    packed = render_png(spec)
    assert _chunks(drawn) == _chunks(packed)
    assert len(packed) < len(drawn) / 2


def _chunks(png: bytes) -> dict[bytes, bytes]:
    """The content of a PNG by the kind of chunk, each checked, and the pixels unpacked."""
    found: dict[bytes, bytes] = {b"": png[:8]}
    start = 8
    while start < len(png):
        size = int.from_bytes(png[start : start + 4])
        kind, content = png[start + 4 : start + 8], png[start + 8 : start + 8 + size]
        assert zlib.crc32(kind + content) == int.from_bytes(png[start + 8 + size : start + 12 + size])
        found[kind] = found.get(kind, b"") + content
        start += 12 + size
    return found | {b"IDAT": zlib.decompress(found[b"IDAT"])}


def test_quantiles_of_first_places() -> None:
    """The numbers of a forecast are its quantiles, for as many places as the chart has panels."""
    table = quantile_table(_predictions(15, "2020-01", 2))
    assert [f"place {number}" for number in range(12)] == table["location"].drop_duplicates().tolist()
    assert [(5.0, 25.0, 50.0, 75.0, 95.0)] * 24 == list(
        table[["q05", "q25", "median", "q75", "q95"]].itertuples(index=False, name=None)
    )
