"""Backtests: each fold once, in whatever process, and scores that anybody can compute again."""

from __future__ import annotations

import math
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from command_line import MODELS, write_tables

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.errors import BacktestFailed, EvaluationError, InvalidSetting, TooFewPeriods, ValidationFailed
from chapkit_flows.flows.evaluations import describe_backtest
from chapkit_flows.flows.pictures import Shown
from chapkit_flows.lineage.query import get_artifact, get_run, list_runs

TRIED = MODELS.with_name("tried.py")
SETTINGS = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_"
pytestmark = pytest.mark.usefixtures("server", "home")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the model writes down its calls."""
    file = tmp_path / "calls.txt"
    monkeypatch.setenv("CALLS", str(file))
    return file


@pytest.fixture
def data(calls: Path, tmp_path: Path) -> Path:
    """Two places with the twelve months of 2020 or so."""
    return write_tables(tmp_path / "tables")["training"]


@pytest.fixture
def tried() -> Model:
    model = load_model(f"{TRIED}:tried")
    assert isinstance(model, Model)
    return model


def lines(calls: Path) -> list[str]:
    """The calls so far; the file is emptied."""
    text = calls.read_text() if calls.exists() else ""
    calls.write_text("")
    return text.splitlines()


def frame_of(artifact_id: str) -> pd.DataFrame:
    resources = open_resources()
    return load(resources.store, get_artifact(resources.database, artifact_id))


def test_scores_can_be_computed_again(tried: Model, data: Path) -> None:
    """Each row of the scores is what the stored forecast and the data give by hand; the run records the means."""
    result = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 3})
    scores = frame_of(result.artifact_id)
    run = get_run(open_resources().database, result.run_id)
    table = pd.read_csv(data, dtype={"time_period": str})
    periods = sorted(table["time_period"].unique())
    assert [periods[-5], periods[-4], periods[-3]] == sorted(scores["origin"].unique())
    assert (2 * 3 * 2, {1, 2}) == (len(scores), set(scores["horizon"]))
    truth = table.set_index(["time_period", "location"])["disease_cases"]
    for row in scores.itertuples():
        learnt = table[(table["time_period"] <= row.origin) & (table["location"] == row.location)]
        median = learnt["disease_cases"].mean() + 2
        assert abs(truth[row.time_period, row.location] - median) == pytest.approx(row.mae)
    assert scores["mae"].mean() == pytest.approx(run.metrics["mae"]) == pytest.approx(result.metrics["mae"])
    assert {"done": 3, "reused": 0, "failed": 0} == result.folds
    expected = {"periods": 2, "splits": 3, "strategy": "refit", "covariates": "climatology", "window": "expanding"}
    assert expected == {key: run.parameters[key] for key in expected}
    forecasts = list_tree(open_resources().store, run.output("forecasts").digest)
    assert [f"{origin}.parquet" for origin in sorted(scores["origin"].unique())] == [one.path for one in forecasts]


def test_rerun_does_only_what_is_missing(tried: Model, data: Path, calls: Path) -> None:
    """A fold is done once; another config, other data or one more split ask for theirs only."""
    first = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 2})
    assert 4 == len(lines(calls))
    again = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 2})
    assert ([], {"done": 2, "reused": 2, "failed": 0}) == (lines(calls), again.folds)
    assert frame_of(first.artifact_id).equals(frame_of(again.artifact_id))
    more = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 3})
    assert (2, 2) == (len(lines(calls)), more.folds["reused"])
    tried.backtest(tried.config(shift=1), str(data), plan={"periods": 2, "splits": 2})
    assert 4 == len(lines(calls))
    changed = data.with_name("changed.csv")
    changed.write_text(data.read_text().replace("rainfall", "rainfall", 1) + "\n")
    tried.backtest(tried.config(), str(changed), plan={"periods": 2, "splits": 2})
    assert 4 == len(lines(calls))


def test_lost_forecast_is_made_again(tried: Model, data: Path, calls: Path, home: Path) -> None:
    """A fold whose bytes are gone is done again."""
    result = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 2})
    lines(calls)
    run = get_run(open_resources().database, result.run_id)
    (first, _) = list_tree(open_resources().store, run.output("forecasts").digest)
    hexadecimal = first.digest.removeprefix("sha256:")
    (home / "artifacts/objects/sha256" / hexadecimal[:2] / hexadecimal[2:]).unlink()
    again = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 2})
    assert (2, 1) == (len(lines(calls)), again.folds["reused"])


def test_failed_fold_is_recorded(tried: Model, data: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that fails does not end the others; the rerun does that one only."""
    periods = sorted(pd.read_csv(data, dtype=str)["time_period"].unique())
    monkeypatch.setenv("FAIL_AT", periods[-3])
    result = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 3})
    assert {"done": 2, "reused": 0, "failed": 1} == result.folds
    run = get_run(open_resources().database, result.run_id)
    assert ("completed", 1.0) == (run.status, run.metrics["failed_folds"])
    (reason,) = run.output("scores").metadata["failed"].values()
    assert "on_train failed: ZeroDivisionError: no rain fell" in reason
    monkeypatch.delenv("FAIL_AT")
    lines(calls)
    again = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 3})
    assert ({"done": 3, "reused": 2, "failed": 0}, 2) == (again.folds, len(lines(calls)))


def test_all_folds_fail(tried: Model, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backtest without any forecast is a failed run that says why."""
    periods = sorted(pd.read_csv(data, dtype=str)["time_period"].unique())
    monkeypatch.setenv("FAIL_AT", periods[-3])
    with pytest.raises(BacktestFailed, match=r"None of the 1 folds could be done.*no rain fell"):
        tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 1})


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("train_once", ["train", "predict", "predict", "predict"]),
        ("update", ["train", "update", "update", "predict", "predict", "predict"]),
    ],
)
def test_strategies(tried: Model, data: Path, calls: Path, strategy: str, words: list[str]) -> None:
    """A model is trained at the first origin only, and gone on with or not; each origin knows its own past."""
    tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 3, "strategy": strategy})
    periods = sorted(pd.read_csv(data, dtype=str)["time_period"].unique())
    done = [line.split() for line in lines(calls)]
    assert words == sorted((one[0] for one in done), key=["train", "update", "predict"].index)
    assert {("train", periods[0], periods[-5])} == {tuple(one) for one in done if one[0] == "train"}
    assert [periods[-5], periods[-4], periods[-3]] == sorted(one[2] for one in done if one[0] == "predict")
    again = tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 3, "strategy": strategy})
    assert ([], 3) == (lines(calls), again.folds["reused"])


def test_sliding_window(tried: Model, data: Path, calls: Path) -> None:
    """With a sliding window each fold learns from as many periods."""
    tried.backtest(tried.config(), str(data), plan={"periods": 2, "splits": 2, "window": "sliding", "window_length": 5})
    periods = sorted(pd.read_csv(data, dtype=str)["time_period"].unique())
    trained = [tuple(line.split()[1:]) for line in lines(calls) if line.startswith("train")]
    assert [(periods[-8], periods[-4]), (periods[-7], periods[-3])] == trained


@pytest.mark.parametrize("where", ["processes", "dask", "ray"])
def test_other_processes_do_the_folds(
    tried: Model,
    data: Path,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: Literal["processes", "dask", "ray"],
) -> None:
    """Folds done in processes of their own, also those of a Dask or Ray cluster, give the same scores as in threads."""
    if where != "processes":
        pytest.importorskip(f"prefect_{where}", reason=f"the extra {where} is not installed")
    plan = {"periods": 2, "splits": 2, "pictures": False, "baselines": []}
    here = tried.backtest(tried.config(), str(data), plan=plan)
    monkeypatch.setenv(f"{SETTINGS}HOME", f"{data.parent}/other")
    lines(calls)
    flow = tried.backtest.with_options(task_runner=tried.task_runner(where, workers=2))
    there = flow(tried.config(), str(data), plan=plan)
    assert 4 == len(lines(calls))
    assert here.metrics == there.metrics


@pytest.mark.parametrize(("engine", "address"), [("dask", "tcp://127.0.0.1:9"), ("ray", "ray://127.0.0.1:9")])
def test_cluster_that_does_not_answer(
    tried: Model,
    data: Path,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: Literal["dask", "ray"],
    address: str,
) -> None:
    """An address at which nothing answers fails the run in time with what to do: no fold is done, nothing is kept."""
    pytest.importorskip(f"prefect_{engine}", reason=f"the extra {engine} is not installed")
    module = f"chapkit_flows.flows.{engine}"
    assert import_module(module).ANSWER_SECONDS <= 10
    monkeypatch.setattr(f"{module}.ANSWER_SECONDS", 1)
    flow = tried.backtest.with_options(task_runner=tried.task_runner(engine, address=address))
    began = time.monotonic()
    with pytest.raises(InvalidSetting, match=r"127\.0\.0\.1:9 does not answer within 1 s"):
        flow(tried.config(), str(data), plan={"periods": 2, "splits": 2})
    assert time.monotonic() - began < 15
    (run,) = list_runs(open_resources().database)
    assert ("failed", (), []) == (run.status, run.outputs, lines(calls))


def test_what_is_not_defined_is_left_out(data: Path, server: str) -> None:
    """A forecast of one number has no intervals: the run, its result and its page say nothing of them."""
    model = load_model(f"{MODELS}:mean")
    assert isinstance(model, Model)
    result = model.backtest(model.config(samples=1), str(data), plan={"periods": 2, "splits": 2})
    run = get_run(open_resources().database, result.run_id)
    assert {"crps", "mae"} <= set(result.metrics)
    assert all(math.isfinite(value) for value in run.metrics.values())
    assert "nan" not in describe_backtest(run, Shown(scores=frame_of(result.artifact_id)))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"periods": 2, "splits": 20}, TooFewPeriods, "The panel has 12 periods"),
        ({"splits": 0}, EvaluationError, "n_splits is 0"),
        ({"periods": 2, "window": "sliding"}, EvaluationError, "needs its length"),
    ],
)
def test_refused_plans(tried: Model, data: Path, calls: Path, given: dict[str, Any], error: type, words: str) -> None:
    """A plan that the data cannot fill is refused before the model is called."""
    with pytest.raises(error, match=words):
        tried.backtest(tried.config(), str(data), plan=given)
    assert [] == lines(calls)


def test_model_that_cannot_be_updated(data: Path, calls: Path) -> None:
    """The strategy update is refused for a runner without on_update."""
    model: Any = load_model(f"{TRIED}:plain")
    with pytest.raises(ValidationFailed, match="has no on_update"):
        model.backtest(model.config(), str(data), plan={"periods": 2, "splits": 2, "strategy": "update"})
    assert [] == lines(calls)


def test_missing_truth_is_counted(tried: Model, data: Path) -> None:
    """Places without truth in a fold are left out of its scores and counted; a place without any is refused."""
    table = pd.read_csv(data, dtype={"time_period": str})
    last = table["time_period"].max()
    place = table["location"].iloc[0]
    table["disease_cases"] = table["disease_cases"].astype("float64")
    table.loc[(table["time_period"] == last) & (table["location"] == place), "disease_cases"] = np.nan
    gappy = data.with_name("gappy.csv")
    table.to_csv(gappy, index=False)
    result = tried.backtest(tried.config(), str(gappy), plan={"periods": 2, "splits": 2})
    scores = frame_of(result.artifact_id)
    assert [(place, last)] == [
        tuple(row) for row in scores.loc[scores["excluded"] != "", ["location", "time_period"]].to_numpy()
    ]
    table.loc[table["location"] == place, "disease_cases"] = np.nan
    table.to_csv(gappy, index=False)
    with pytest.raises(ValidationFailed, match="without any value"):
        tried.backtest(tried.config(), str(gappy), plan={"periods": 2, "splits": 2})
    table.assign(disease_cases=np.nan).to_csv(gappy, index=False)
    with pytest.raises(ValidationFailed, match="disease_cases"):
        tried.backtest(tried.config(), str(gappy), plan={"periods": 2, "splits": 2})
