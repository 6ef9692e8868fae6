"""Predictions are scored when their truth comes; the numbers are theirs from then on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from command_line import MODELS, CommandLine, write_tables

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.errors import ArtifactError, UnscorableForecast, ValidationFailed
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.query import get_artifact, get_run, list_runs
from chapkit_flows.lineage.search import search_artifacts
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.recovery import rebuild

pytestmark = pytest.mark.usefixtures("server", "home")


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    return write_tables(tmp_path / "tables")


@pytest.fixture
def mean() -> Model:
    model = load_model(f"{MODELS}:mean")
    assert isinstance(model, Model)
    return model


@pytest.fixture
def prediction(mean: Model, tables: dict[str, Path]) -> str:
    trained = mean.train(mean.config(), str(tables["training"]))
    made = mean.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    return str(made.artifact_id)


def truth_of(tables: dict[str, Path], periods: int) -> Path:
    """Data in which the first periods of the forecast have come: seven cases everywhere."""
    future = pd.read_csv(tables["future"], dtype={"time_period": str})
    come = sorted(future["time_period"].unique())[:periods]
    file = tables["future"].with_name(f"truth{periods}.csv")
    rows = future[future["time_period"].isin(come)].assign(disease_cases=7)
    pd.concat([pd.read_csv(tables["historic"], dtype={"time_period": str}), rows]).to_csv(file, index=False)
    return file


def test_numbers_are_the_predictions(mean: Model, tables: dict[str, Path], prediction: str) -> None:
    """The score is what forecast and truth give by hand; a search for it finds the prediction, also after a rebuild."""
    result = mean.score(str(truth_of(tables, 3)), prediction)
    resources = open_resources()
    frame = load(resources.store, get_artifact(resources.database, prediction))
    by_hand = (frame.filter(like="sample_").median(axis=1) - 7).abs().mean()
    run = get_run(resources.database, result.run_id)
    assert pytest.approx(by_hand) == result.metrics["mae"] == run.artifact_metrics[prediction]["mae"]
    assert {"scored": 1, "unchanged": 0, "waiting": 0, "failed": 0} == result.predictions
    assert {"prediction", "truth"} == {edge.role for edge in run.inputs}
    for where in (f"metric.mae < {by_hand + 1}", f"kind = 'prediction' and metric.mae > {by_hand - 1}"):
        assert prediction in [found.id for found in search_artifacts(resources.database, where)]
    lost = open_database(f"sqlite:///{tables['future'].parent}/rebuilt.db")
    rebuild(Resources(store=resources.store, database=lost))
    assert run.artifact_metrics == get_run(lost, result.run_id).artifact_metrics
    found = search_artifacts(lost, f"kind = 'prediction' and metric.mae < {by_hand + 1}")
    assert [prediction] == [one.id for one in found]
    lost.close()


def test_more_truth_adds_a_run(mean: Model, tables: dict[str, Path], prediction: str) -> None:
    """Scoring again with more truth replaces nothing."""
    first = mean.score(str(truth_of(tables, 1)), prediction)
    second = mean.score(str(truth_of(tables, 3)), prediction)
    database, store = open_resources().database, open_resources().store
    runs = list_runs(database, flow="score")
    assert [second.run_id, first.run_id] == [run.id for run in runs]
    assert all("mae" in run.artifact_metrics[prediction] for run in runs)
    rows = [load(store, get_artifact(database, one.artifact_id)) for one in (first, second)]
    assert [2, 6] == [int((table["excluded"] == "").sum()) for table in rows]


def test_same_truth_again_records_nothing_twice(
    mean: Model, tables: dict[str, Path], prediction: str, cli: CommandLine
) -> None:
    """A prediction that comes to the same scores is left alone; the command still says them, as its page does."""
    truth = truth_of(tables, 3)
    first = mean.score(str(truth))
    again = mean.score(str(truth), prediction)
    assert (1, 0) == (again.predictions["unchanged"], again.predictions["scored"])
    assert (None, first.metrics) == (again.artifact_id, again.metrics)
    run = get_run(open_resources().database, again.run_id)
    assert ({"truth"}, (), {}) == ({edge.role for edge in run.inputs}, run.outputs, dict(run.artifact_metrics))
    shown = cli("artifacts", "show", prediction).out
    assert f"with {truth.name}" in shown and f"by run {first.run_id}" in shown
    scores = cli("artifacts", "show", prediction, "--json").json["scores"]
    assert (first.run_id, first.metrics["crps"]) == (scores["run_id"], pytest.approx(scores["metrics"]["crps"]))


def test_scores_all_whose_truth_has_come(
    mean: Model, tables: dict[str, Path], prediction: str, cli: CommandLine
) -> None:
    """Of all predictions of a model those with truth are scored; the others are counted, and wait."""
    mean.predict("mean@latest", str(tables["historic"]), str(tables["future"]))
    waiting = cli("score", "--model", "mean", "--truth", tables["historic"], "--json")
    expected = {"scored": 0, "unchanged": 0, "waiting": 2, "failed": 0}
    assert (0, expected) == (waiting.code, waiting.json["predictions"])
    told = cli("score", "--model", "mean", "--truth", truth_of(tables, 2))
    assert 0 == told.code
    assert "2 scored, 0 as before, 0 without truth yet, 0 cannot be scored" in told.out
    assert "CRPS" in told.out
    assert prediction in cli("artifacts", "list", "--kind", "prediction", "--where", "metric.crps >= 0").out


def test_refusals(mean: Model, tables: dict[str, Path], prediction: str, cli: CommandLine) -> None:
    """No truth yet, truth with another target or of other places, and what is no prediction are refused."""
    refused = cli("score", prediction, "--truth", tables["historic"])
    assert 2 == refused.code
    assert "The truth has no value of 'disease_cases'" in refused.err
    truth = pd.read_csv(truth_of(tables, 3), dtype={"time_period": str})
    other = tables["future"].with_name("other.csv")
    truth.rename(columns={"disease_cases": "malaria"}).to_csv(other, index=False)
    with pytest.raises(ValidationFailed, match="disease_cases"):
        mean.score(str(other), prediction)
    truth[truth["location"] == truth["location"].iloc[0]].to_csv(other, index=False)
    with pytest.raises(UnscorableForecast, match="places that the truth does not have"):
        mean.score(str(other), prediction)
    trained = get_run(open_resources().database, list_runs(open_resources().database, flow="train")[0].id)
    with pytest.raises(ArtifactError, match="not a prediction"):
        mean.score(str(other), trained.output("model").id)
    foreign = load_model(f"{MODELS}:point")
    with pytest.raises(ArtifactError, match="not by point"):
        foreign.score(str(truth_of(tables, 3)), prediction)
    assert {"failed"} == {run.status for run in list_runs(open_resources().database, flow="score")}
    assert [] == search_artifacts(open_resources().database, "metric.mae > 0")
