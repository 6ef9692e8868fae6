"""Scores are rows per fold, place and horizon; what cannot be scored is refused or counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from chapkit_flows.errors import EvaluationError, UnscorableForecast
from chapkit_flows.evaluation.metrics import METRICS, Metric
from chapkit_flows.evaluation.scores import learn_yardstick, score_split, summarise
from chapkit_flows.evaluation.splits import Split

SPLIT = Split(number=2, origin="2020-02", train_periods=("2020-01", "2020-02"), test_periods=("2020-03", "2020-04"))


def _month(period: str) -> int:
    return int(period[5:])


def _predictions(places: str = "AB", samples: int = 5) -> pd.DataFrame:
    keys = [(period, place) for place in places for period in SPLIT.test_periods]
    values = {f"sample_{number}": [float(row * 10 + number) for row in range(len(keys))] for number in range(samples)}
    return pd.DataFrame(keys, columns=["time_period", "location"]).assign(**values)


def _truth(**values: list[float | None]) -> pd.DataFrame:
    rows = [
        (period, place, value)
        for place, known in values.items()
        for period, value in zip(("2020-02", *SPLIT.test_periods), known, strict=True)
    ]
    return pd.DataFrame(rows, columns=["time_period", "location", "cases"]).astype({"cases": "float64"})


TRUTH = _truth(A=[9, 2, 10], B=[9, 22, 30])


def _score(predictions: pd.DataFrame, truth: pd.DataFrame = TRUTH) -> pd.DataFrame:
    return score_split(predictions, truth, target="cases", split=SPLIT)


def test_rows_name_fold_place_and_horizon() -> None:
    """A row has its fold, origin, place, period and horizon; the order of the input does not matter."""
    scores = _score(_predictions().sample(frac=1, random_state=3))
    assert [
        (2, "2020-02", "A", "2020-03", 1, ""),
        (2, "2020-02", "A", "2020-04", 2, ""),
        (2, "2020-02", "B", "2020-03", 1, ""),
        (2, "2020-02", "B", "2020-04", 2, ""),
    ] == list(scores.iloc[:, :6].itertuples(index=False, name=None))
    assert [0.0, 2.0, 0.0, 2.0] == scores["mae"].tolist()
    pd.testing.assert_frame_equal(scores, _score(_predictions()))


def test_missing_truth_is_counted() -> None:
    """A row without truth stays, unscored, with the reason; means say how many rows they leave out."""
    scores = _score(_predictions(), _truth(A=[9, None, 10], B=[9, 22, 30]))
    assert ["missing_truth", "", "", ""] == scores["excluded"].tolist()
    assert scores.loc[0, [metric.name for metric in METRICS]].isna().all()
    row = summarise(scores).set_index("metric").loc["mae"]
    assert (4 / 3, 3, 1) == (row["value"], row["n"], row["n_excluded"])


def test_place_without_truth_is_counted() -> None:
    """A place whose truth is wholly missing has a line in the means per place, with no value."""
    table = summarise(_score(_predictions(), _truth(A=[9, None, None], B=[9, 22, 30])), ["location"])
    rows = table[table["metric"] == "crps"].set_index("location")
    assert [(0, 2), (2, 0)] == list(rows[["n", "n_excluded"]].itertuples(index=False, name=None))
    assert np.isnan(rows.loc["A", "value"])


def test_missing_forecasts_are_counted() -> None:
    """A place with truth that was not forecast is in the table, so that no model gains by leaving it out."""
    scores = _score(_predictions("A"))
    assert ["", "", "missing_forecast", "missing_forecast"] == scores["excluded"].tolist()


def test_nothing_to_score() -> None:
    """Without any truth in the tested periods all rows are there and none has a score."""
    scores = _score(_predictions(), _truth(A=[9, None, None], B=[9, None, None]))
    assert ["missing_truth"] * 4 == scores["excluded"].tolist()
    assert 0 == summarise(scores)["n"].sum()


def _with(value: float) -> pd.DataFrame:
    predictions = _predictions()
    predictions.loc[1, "sample_3"] = value
    return predictions


@pytest.mark.parametrize(
    ("predictions", "truth", "message"),
    [
        (_with(np.nan), TRUTH, r"1 of 4 forecasts have samples that are missing or infinite, such as A in 2020-04"),
        (_with(np.inf), TRUTH, "missing or infinite, such as A in 2020-04"),
        (_predictions("ABX"), TRUTH, r"places that the truth does not have: X \(1 of 3\)"),
        (_predictions().replace("2020-04", "2020-05"), TRUTH, "2020-05. It tests 2020-03 to 2020-04"),
        (pd.concat([_predictions(), _predictions("A")]), TRUTH, "2 rows too many, such as a second one for A in"),
        (_predictions(), pd.concat([TRUTH, TRUTH]), "The truth have 4 rows too many"),
        (_predictions()[["time_period", "location"]], TRUTH, "no column sample_0 … or prediction"),
        (_predictions().drop(columns="location"), TRUTH, "no column location"),
        (_predictions(), TRUTH.drop(columns="cases"), "no column 'cases'"),
        (_predictions(), _truth(A=[9, np.inf, 1], B=[9, 1, 1]), "infinite values of 'cases'"),
    ],
    ids=["nan", "inf", "unknown place", "other period", "twice", "truth twice", "no sample", "no place", "no target",
         "infinite truth"],
)  # fmt: skip
def test_what_cannot_be_scored_is_named(predictions: pd.DataFrame, truth: pd.DataFrame, message: str) -> None:
    """A forecast that has no score is refused with its place and period."""
    with pytest.raises(UnscorableForecast, match=message):
        _score(predictions, truth)


@pytest.mark.parametrize("name", ["prediction", "sample_0"])
def test_point_forecasts(name: str) -> None:
    """One number per row is scored by its error, under either name."""
    scores = _score(_predictions(samples=1).rename(columns={"sample_0": name}))
    assert [2.0, 0.0, 2.0, 0.0] == scores["crps"].tolist() == scores["wis"].tolist() == scores["mae"].tolist()
    assert scores["coverage_90"].isna().all()


def test_yardstick_is_of_place_and_season() -> None:
    """The scale is the mean absolute change of a place, the threshold the upper quartile of place and season."""
    years = [f"{year}-{month:02d}" for year in (2010, 2011, 2012, 2013) for month in (3, 4)]
    training = pd.DataFrame({"time_period": years, "location": "A", "cases": [1.0, 10, 2, 20, 3, 30, 4, 40]})
    yardstick = learn_yardstick(training, target="cases", season_of=_month)
    assert {"A": (9 + 8 + 18 + 17 + 27 + 26 + 36) / 7} == pytest.approx(yardstick.scale.to_dict())
    assert {("A", 3): 3.25, ("A", 4): 32.5} == pytest.approx(yardstick.threshold.to_dict())
    scores = score_split(
        _predictions(), _truth(A=[0, 4, 10], B=[9, 2, 30]), target="cases", split=SPLIT, yardstick=yardstick
    )
    assert [0.0, None, None, None] == [None if np.isnan(value) else value for value in scores["sensitivity"]]
    assert [None, 1.0, None, None] == [None if np.isnan(value) else value for value in scores["specificity"]]
    np.testing.assert_allclose(scores["crps"][:2] * 7 / 141, scores["crps_normalised"][:2])
    assert scores["crps_normalised"][2:].isna().all()


def test_short_past_has_no_threshold() -> None:
    """Two past values of a season do not say what an outbreak is."""
    training = pd.DataFrame({"time_period": ["2018-03", "2019-03"], "location": "A", "cases": [1.0, 2.0]})
    assert learn_yardstick(training, target="cases", season_of=_month).threshold.isna().all()


def test_means_by_horizon_place_and_overall() -> None:
    """Rows are put together by their mean, those of the RMSE by the root of the mean square."""
    scores = _score(_predictions(samples=1), _truth(A=[0, 3, 14], B=[0, 20, 30]))
    overall = summarise(scores).set_index("metric")["value"]
    assert 7 / 4 == overall["mae"]
    assert (25 / 4) ** 0.5 == overall["rmse"]
    by = {
        name: summarise(scores, [name]).query("metric == 'mae'")["value"].tolist() for name in ("horizon", "location")
    }
    assert {"horizon": [1.5, 2.0], "location": [3.5, 0.0]} == by


def test_own_metric() -> None:
    """A metric of one's own is a column beside the others."""
    width = Metric(
        name="width", title="Range", unit="target", orientation="none", function=lambda f: np.ptp(f.samples, axis=1)
    )
    scores = score_split(_predictions(), TRUTH, target="cases", split=SPLIT, metrics=(*METRICS, width))
    assert [4.0] * 4 == scores["width"].tolist()
    assert 4.0 == summarise(scores, metrics=[width])["value"].item()


def test_large_tables_are_scored_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores do not depend on how many rows are scored at once."""
    whole = _score(_predictions())
    monkeypatch.setattr("chapkit_flows.evaluation.scores._BLOCK", 6)
    pd.testing.assert_frame_equal(whole, _score(_predictions()))


def test_means_of_what_is_not_there() -> None:
    """A column that the scores do not have is named."""
    with pytest.raises(EvaluationError, match="no column 'season'"):
        summarise(_score(_predictions()), ["season"])
    with pytest.raises(EvaluationError, match="no column of a metric"):
        summarise(_score(_predictions())[["fold", "location"]])
