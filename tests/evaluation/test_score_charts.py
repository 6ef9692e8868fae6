"""Charts of scores show what the numbers say, and draw without a browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from chapkit_flows.errors import EvaluationError, UnknownMetric
from chapkit_flows.evaluation.charts import render_png
from chapkit_flows.evaluation.comparison import compare
from chapkit_flows.evaluation.score_charts import (
    calibration_spec,
    comparison_spec,
    horizon_spec,
    map_spec,
    pit_histogram,
)
from chapkit_flows.evaluation.scores import score_split
from chapkit_flows.evaluation.splits import Split

MONTHS = [f"2020-{month:02d}" for month in range(1, 13)]
PLACES = ["A", "B", "C"]


def _scores(error: float, *, samples: int = 50, folds: int = 6) -> pd.DataFrame:
    """Counts forecast by samples of their own distribution, off by `error`."""
    random = np.random.default_rng(7)
    keys = pd.MultiIndex.from_product([PLACES, MONTHS]).to_frame(index=False, name=["location", "time_period"])
    truth = keys.assign(cases=random.poisson(20, len(keys)).astype("float64"))
    tables = []
    for number in range(folds):
        split = Split(
            number=number,
            origin=MONTHS[number],
            train_periods=tuple(MONTHS[: number + 1]),
            test_periods=tuple(MONTHS[number + 1 : number + 4]),
        )
        ahead = split.testing(truth)[["time_period", "location"]]
        drawn = pd.DataFrame(random.poisson(20, (len(ahead), samples)) + error).add_prefix("sample_")
        tables.append(score_split(pd.concat([ahead, drawn], axis=1), truth, target="cases", split=split))
    return pd.concat(tables, ignore_index=True)


GOOD, BAD = _scores(0.0), _scores(6.0)
SCORES = {"good": GOOD, "bad": BAD}
POLYGONS = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "id": place,
            "properties": {"name": "kept out"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[at, 0], [at + 1, 0], [at + 1, 1], [at, 1], [at, 0]]],
            },
        }
        for at, place in enumerate([*PLACES, "unscored"])
    ],
}


def _steps(*steps: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(steps, columns=["pit_low", "pit_high"])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 1)], [0.1] * 10),
        ([(0, 0.1)], [1] + [0] * 9),
        ([(0.05, 0.15)], [0.5, 0.5] + [0] * 8),
        ([(0, 0)], [1] + [0] * 9),
        ([(1, 1)], [0] * 9 + [1]),
        ([(0.55, 0.55)], [0] * 5 + [1] + [0] * 4),
        ([(0, 0), (1, 1), (np.nan, np.nan)], [0.5] + [0] * 8 + [0.5]),
    ],
)
def test_pit_histogram_spreads_steps(steps: list[tuple[float, float]], expected: list[float]) -> None:
    """The step of a count is spread evenly over the bins it touches; a truth beyond all samples is in an end bin."""
    np.testing.assert_allclose(expected, pit_histogram(_steps(*steps)), atol=1e-12)


def test_pit_histogram_of_calibrated_counts_is_flat() -> None:
    """Counts that come from the forecast distribution give a flat histogram, others do not."""
    samples, truth = np.random.default_rng(1).poisson(2, (4000, 200)), np.random.default_rng(2).poisson(2, (4000, 1))
    steps = _steps(*zip((samples < truth).mean(axis=1), (samples <= truth).mean(axis=1), strict=True))
    np.testing.assert_allclose([0.1] * 10, pit_histogram(steps), atol=0.012)
    assert pit_histogram(BAD)[0] > 0.3


def test_calibration_shows_each_model() -> None:
    """Each model has a histogram, all of one scale, and a line of its coverage at four levels."""
    histograms, coverage = calibration_spec(SCORES)["vconcat"]
    assert ["good", "bad"] == [panel["title"] for panel in histograms["concat"]]
    assert 1 == len({panel["layer"][0]["encoding"]["y"]["scale"]["domain"][1] for panel in histograms["concat"]})
    points = coverage["layer"][1]["data"]["values"]
    assert [("good", 0.5), ("good", 0.8), ("good", 0.9), ("good", 0.95)] == [
        (point["model"], point["level"]) for point in points[:4]
    ]
    assert GOOD["coverage_90"].mean() == pytest.approx(points[2]["covered"])


def test_horizons_have_a_line_per_model() -> None:
    """A panel per metric has the mean of each model at each horizon, and says which way is better."""
    left, right = horizon_spec(SCORES)["hconcat"]
    assert ("CRPS (less is better)", "CRPS of log(1 + x) (less is better)") == (
        left["encoding"]["y"]["title"],
        right["encoding"]["y"]["title"],
    )
    values = left["data"]["values"]
    assert [("good", 1), ("good", 2), ("good", 3), ("bad", 1)] == [(row["model"], row["horizon"]) for row in values[:4]]
    assert GOOD.loc[GOOD["horizon"] == 2, "crps"].mean() == pytest.approx(values[1]["value"])


def test_comparison_shows_skill_and_significance() -> None:
    """Each bar is a skill, with the score and the p-value in words."""
    comparison = compare({**SCORES, "equal": BAD}, reference="bad")
    spec = comparison_spec(comparison)
    assert [row.skill for row in comparison.rows] == [row["skill"] for row in spec["data"]["values"]]
    assert "bad (right is better)" in spec["layer"][0]["encoding"]["x"]["title"]
    assert spec["data"]["values"][1]["note"].endswith("p = 1")


def test_map_has_a_score_per_place() -> None:
    """Each polygon has the mean score of its place; one without score is grey, and no other property is taken over."""
    spec = map_spec(GOOD, POLYGONS, "crps")
    properties = [feature["properties"] for feature in spec["data"]["values"]]
    assert [*PLACES, "unscored"] == [each["place"] for each in properties]
    assert GOOD.loc[GOOD["location"] == "B", "crps"].mean() == pytest.approx(properties[1]["score"])
    assert None is properties[3]["score"]
    assert {"place", "score"} == set(properties[0])


def test_map_of_other_places() -> None:
    """Polygons of other places are refused: the map would be grey."""
    with pytest.raises(EvaluationError, match="No polygon has the id of a place that was scored"):
        map_spec(GOOD.assign(location="Z"), POLYGONS)
    with pytest.raises(UnknownMetric, match="No metric 'crpss'"):
        map_spec(GOOD, POLYGONS, "crpss")


def test_points_have_no_calibration() -> None:
    """Forecasts of one number have no PIT, and it is said."""
    with pytest.raises(EvaluationError, match="takes more than one sample"):
        calibration_spec({"point": _scores(0.0, samples=1)})


def test_comparison_with_a_perfect_reference() -> None:
    """Without a skill there is no chart of it."""
    with pytest.raises(EvaluationError, match="No model has a skill against perfect"):
        comparison_spec(compare({"perfect": GOOD.assign(crps=0.0), "bad": BAD}, reference="perfect"))


@pytest.mark.parametrize(
    "spec",
    [
        calibration_spec(SCORES),
        horizon_spec(SCORES),
        comparison_spec(compare(SCORES, reference="bad")),
        map_spec(GOOD, POLYGONS),
    ],
    ids=["calibration", "horizon", "comparison", "map"],
)
def test_draws(spec: dict[str, Any]) -> None:
    """Each chart is a picture with something in it."""
    png = render_png(spec, scale=1.0)
    assert png.startswith(b"\x89PNG")
    assert len(png) > 2000
