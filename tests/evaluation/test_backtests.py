"""The baselines, backtested on real data by plain loops: what the scores say is what an independent reading says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from chapkit_flows.baselines import TARGET, climatology, persistence, seasonal_naive
from chapkit_flows.data.panels import Panel, check_panel
from chapkit_flows.data.periods import season_of
from chapkit_flows.data.tables import read_table
from chapkit_flows.evaluation.comparison import compare
from chapkit_flows.evaluation.covariates import future_covariates
from chapkit_flows.evaluation.gates import judge, read_gate
from chapkit_flows.evaluation.scores import learn_yardstick, score_split, summarise
from chapkit_flows.evaluation.splits import Split, SplitPlan, check_truth, rolling_origins
from chapkit_flows.flows.model import Model

BASELINES = (persistence, seasonal_naive, climatology)
VIETNAM = "vnm_dengue_monthly/vietnam_monthly.csv"
NICARAGUA = "nicaragua_weekly/nicaragua_weekly_data.csv"
PLAN = SplitPlan(n_periods=3, n_splits=4)


def _panel(path: Path) -> Panel:
    with path.open("rb") as file:
        frame = read_table(file, media_type="text/csv", numeric=[TARGET])
    panel, _ = check_panel(frame, role="data", required=[], target=TARGET)
    assert panel is not None
    return panel


def _forecast(model: Model, split: Split, data: pd.DataFrame) -> pd.DataFrame:
    config, training = model.config(n_samples=100), split.training(data)
    trained = model.runner.on_train(config, training)
    future = future_covariates(training, split.testing(data), ["rainfall"], season_of=season_of)
    predicted = model.runner.on_predict(config, trained, training, future)
    assert isinstance(predicted, pd.DataFrame)
    return predicted


def _backtest(
    model: Model, splits: Sequence[Split], data: pd.DataFrame
) -> tuple[pd.DataFrame, list[tuple[Split, pd.DataFrame]]]:
    forecasts = [(split, _forecast(model, split, data)) for split in splits]
    tables = [
        score_split(
            predictions,
            data,
            target=TARGET,
            split=split,
            yardstick=learn_yardstick(split.training(data), target=TARGET, season_of=season_of),
        )
        for split, predictions in forecasts
    ]
    return pd.concat(tables, ignore_index=True), forecasts


def _by_loops(forecasts: list[tuple[Split, pd.DataFrame]], data: pd.DataFrame) -> pd.DataFrame:
    """Scores by their textbook definitions, one forecast at a time, without any code of the package."""
    truth = {(row["location"], row["time_period"]): row[TARGET] for row in data.to_dict("records")}
    rows = []
    for split, predictions in forecasts:
        for row in predictions.to_dict("records"):
            known = truth[row["location"], row["time_period"]]
            x = np.array([value for name, value in row.items() if str(name).startswith("sample_")])
            if np.isnan(known):
                continue
            levels = [0.01, 0.025, *(step / 20 for step in range(1, 20)), 0.975, 0.99]
            losses = [(q - known) * ((known <= q) - at) for at, q in zip(levels, np.quantile(x, levels), strict=True)]
            logs = np.log(1 + x)
            rows.append(
                {
                    "origin": split.origin,
                    "location": row["location"],
                    "time_period": row["time_period"],
                    "crps": np.abs(x - known).mean() - np.abs(x[:, None] - x).mean() / 2,
                    "crps_log1p": np.abs(logs - np.log(1 + known)).mean() - np.abs(logs[:, None] - logs).mean() / 2,
                    "wis": 2 * np.mean(losses),
                    "mae": abs(np.median(x) - known),
                    "rmse": abs(x.mean() - known),
                    "coverage_90": float(np.quantile(x, 0.05) <= known <= np.quantile(x, 0.95)),
                    "bias": np.mean(x > known) - np.mean(x < known),
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("source", "places"), [(VIETNAM, 57), (NICARAGUA, 10)], ids=["months", "weeks"])
def test_scores_agree_with_an_independent_reading(shared: Path, source: str, places: int) -> None:
    """On real data with gaps every score of every row, and every mean, is that of the textbook to 1e-6."""
    panel = _panel(shared / source)
    splits = rolling_origins(panel.periods, PLAN)
    for model in BASELINES:
        scores, forecasts = _backtest(model, splits, panel.frame)
        assert places * 3 * 4 == len(scores)
        expected = _by_loops(forecasts, panel.frame).set_index(["origin", "location", "time_period"]).sort_index()
        scored = scores[scores["excluded"] == ""].set_index(["origin", "location", "time_period"]).sort_index()
        pd.testing.assert_frame_equal(expected, scored[expected.columns], rtol=0, atol=1e-6)
        assert len(expected) == len(scores) - (scores["excluded"] == "missing_truth").sum()
        overall = summarise(scores).set_index("metric")
        assert expected["crps"].mean() == pytest.approx(overall.loc["crps", "value"], abs=1e-6)
        assert (expected["rmse"] ** 2).mean() ** 0.5 == pytest.approx(overall.loc["rmse", "value"], abs=1e-6)
        assert len(scores) - len(expected) == overall.loc["crps", "n_excluded"]


def test_baselines_differ_as_they_should(shared: Path) -> None:
    """On Vietnam persistence beats climatology one month ahead and loses its lead three months ahead."""
    panel = _panel(shared / VIETNAM)
    splits = rolling_origins(panel.periods, SplitPlan(n_periods=3, n_splits=6))
    scores = {model.name: _backtest(model, splits, panel.frame)[0] for model in (persistence, climatology)}
    skills = {row.model: row.skill for row in compare(scores, reference="climatology").rows}
    assert skills["persistence"] is not None
    errors = {
        name: summarise(table, ["horizon"]).query("metric == 'crps_log1p'").set_index("horizon")["value"]
        for name, table in scores.items()
    }
    lead = errors["climatology"] - errors["persistence"]
    assert lead[1] > lead[2] > lead[3]
    assert lead[1] > 0
    gate = read_gate([{"within": {"metric": "coverage_90", "low": 0.5, "high": 1}}])
    assert judge(gate, scores["persistence"], None).passed


def test_missing_truth_of_real_data_is_told(shared: Path) -> None:
    """What is missing in the data is named before models run, and counted after."""
    panel = _panel(shared / VIETNAM)
    found = check_truth(panel.frame, rolling_origins(panel.periods, PLAN), target=TARGET)
    assert not [each for each in found if each.severity == "error"]
    early = rolling_origins(panel.periods[:60], PLAN)
    without = {each.message for each in check_truth(panel.frame, early, target=TARGET)}
    assert without, "Vietnam has provinces without cases in its early years"
