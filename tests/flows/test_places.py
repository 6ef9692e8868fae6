"""Models that are trained for each place: each once, in whatever process, and none without being told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import MODELS, write_tables

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.errors import BacktestFailed, PlacesFailed, RunnerFailed, ValidationFailed
from chapkit_flows.flows.places import digest_rows
from chapkit_flows.flows.summary import summarise
from chapkit_flows.lineage.facts import Edge, RunFact
from chapkit_flows.lineage.query import get_artifact, get_run, list_artifacts, list_runs
from chapkit_flows.refs import ArtifactRef, digest_of, new_id
from chapkit_flows.upkeep.integrity import Scope, check

SETTINGS = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_"
KINDS = ["placed_function", "placed_class", "placed_shell"]
PLACES = 4
pytestmark = pytest.mark.usefixtures("server", "home")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The calls of the model since this was asked last, sorted."""
    file = tmp_path / "calls.txt"
    monkeypatch.setenv("CALLS", str(file))

    def take() -> list[str]:
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return sorted(lines)

    return take


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    return write_tables(tmp_path / "tables", places=PLACES)


@pytest.fixture
def places(tables: dict[str, Path]) -> list[str]:
    return sorted(pd.read_csv(tables["training"])["location"].unique())


def find(name: str) -> Model:
    model = load_model(f"{MODELS.with_name('places.py')}:{name}")
    assert isinstance(model, Model)
    return model


def run_of(run_id: str) -> RunFact:
    return get_run(open_resources().database, run_id)


def frame_of(artifact_id: str) -> pd.DataFrame:
    resources = open_resources()
    return load(resources.store, get_artifact(resources.database, artifact_id))


def predict(model: Model, tables: dict[str, Path]) -> pd.DataFrame:
    return frame_of(model.predict(f"{model.name}@latest", str(tables["historic"]), str(tables["future"])).artifact_id)


@pytest.mark.parametrize("kind", KINDS)
def test_each_place_has_its_model(
    kind: str, tables: dict[str, Path], places: list[str], calls: Callable[[], list[str]]
) -> None:
    """Each place is trained by itself and predicted with its own model, as one model of means would predict it."""
    model, everywhere = find(kind), find("everywhere")
    trained = run_of(model.train(model.config(), str(tables["training"])).run_id)
    assert [f"train {place}" for place in places] == calls()
    assert (PLACES, 0) == (trained.metrics["places"], trained.metrics["reused_places"])
    everywhere.train(everywhere.config(), str(tables["training"]))
    pd.testing.assert_frame_equal(predict(everywhere, tables), predict(model, tables))
    assert [f"predict {place}" for place in places] == calls()
    artifact = trained.output("model")
    assert (0, places) == (artifact.level, artifact.metadata["trained_places"])
    assert [] == [one.code for checked in check(open_resources(), Scope(read_bytes=True)) for one in checked.findings]


@pytest.mark.parametrize("kind", KINDS)
def test_only_changed_places_are_trained_again(
    kind: str, tables: dict[str, Path], places: list[str], calls: Callable[[], list[str]]
) -> None:
    """With new rows of one place that one is trained; with another config all are, with the old one none is."""
    model, training = find(kind), tables["training"]
    first = model.train(model.config(), str(training))
    calls()
    again = model.train(model.config(), str(training))
    assert ([], PLACES) == (calls(), run_of(again.run_id).metrics["reused_places"])
    digests = [run_of(one.run_id).output("model").digest for one in (first, again)]
    assert digests[0] == digests[1]

    table = pd.read_csv(training, dtype={"time_period": str})
    row = (table["location"] == places[1]) & (table["time_period"] == table["time_period"].max())
    changed = training.with_name("changed.csv")
    table.assign(disease_cases=table["disease_cases"].mask(row, 1e4)).to_csv(changed, index=False)
    part = model.train(model.config(), str(changed))
    assert [f"train {places[1]}"] == calls()
    resources = open_resources()
    before, after = (load(resources.store, run_of(one.run_id).output("model")).kept for one in (first, part))
    assert [places[1]] == [place for place in places if before[place] != after[place]]

    model.train(model.config(shift=1.0), str(training))
    assert PLACES == len(calls())


@pytest.mark.parametrize("kind", KINDS)
def test_place_that_fails(
    kind: str,
    tables: dict[str, Path],
    places: list[str],
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A place that fails fails the run, which names it and leaves no model; the others are not trained again."""
    model = find(kind)
    monkeypatch.setenv("FAIL_FOR", f"{places[0]},{places[3]}")
    with pytest.raises(PlacesFailed, match=rf"No model for 2 of {PLACES} places") as failure:
        model.train(model.config(), str(tables["training"]))
    assert [places[0], places[3]] == list(failure.value.reasons)
    assert all(f"no rain fell in {place}" in reason for place, reason in failure.value.reasons.items())
    assert PLACES == len(calls())
    (run,) = list_runs(open_resources().database)
    assert ("failed", []) == (run.status, [edge for edge in run.outputs if edge.role == "model"])
    assert run.error is not None
    assert f"- {places[3]}: " in run.error
    left = list_artifacts(open_resources().database, kind="training_workspace")
    assert ["failed"] * (2 if kind == "placed_shell" else 0) == [one.status for one in left]

    monkeypatch.delenv("FAIL_FOR")
    done = run_of(model.train(model.config(), str(tables["training"])).run_id)
    assert [f"train {places[0]}", f"train {places[3]}"] == calls()
    assert PLACES - 2 == done.metrics["reused_places"]


def test_place_that_was_not_trained(tables: dict[str, Path], places: list[str], calls: Callable[[], list[str]]) -> None:
    """A prediction for a place without a model is refused before the model is called; validation says so too."""
    model = find("placed_function")
    table = pd.read_csv(tables["training"])
    table[table["location"] != places[2]].to_csv(tables["training"], index=False)
    model.train(model.config(), str(tables["training"]))
    calls()
    with pytest.raises(ValidationFailed, match=f"1 places of future have no trained model: {places[2]}"):
        predict(model, tables)
    assert [] == calls()
    inputs = {name: str(tables[name]) for name in ("historic", "future")}
    found = model.validate(model="placed_function@latest", **inputs)
    assert "place_not_trained" in [one.code for one in found.diagnostics]


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_that_fails_names_its_place(
    kind: str,
    tables: dict[str, Path],
    places: list[str],
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the prediction for a place fails, the error says for which."""
    model = find(kind)
    model.train(model.config(), str(tables["training"]))
    monkeypatch.setenv("FAIL_FOR", places[1])
    with pytest.raises(RunnerFailed, match=f"The place is '{places[1]}'|{places[1]}: The predict command"):
        predict(model, tables)


def test_only_wanted_places_are_read(
    tables: dict[str, Path], places: list[str], calls: Callable[[], list[str]]
) -> None:
    """A prediction for one place reads the model of that place and of no other."""
    model = find("placed_function")
    trained = run_of(model.train(model.config(), str(tables["training"])).run_id)
    resources = open_resources()
    objects = {entry.path: entry for entry in list_tree(resources.store, trained.output("model").digest)}
    (unread,) = (one for path, one in objects.items() if path.startswith("00001-"))
    for name in ("historic", "future"):
        table = pd.read_csv(tables[name])
        table[table["location"] == places[1]].to_csv(tables[name], index=False)
    resources.store.set_aside(unread.digest)
    assert [places[1]] == list(predict(model, tables)["location"].unique())


def test_other_processes_train(
    tables: dict[str, Path],
    places: list[str],
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The processes of a Dask cluster, which are given references, train the same models as this one."""
    model = find("placed_class")
    here = model.train(model.config(), str(tables["training"]))
    digest = run_of(here.run_id).output("model").digest
    calls()
    monkeypatch.setenv(f"{SETTINGS}HOME", f"{tables['training'].parent}/other")
    there = model.train.with_options(task_runner=model.task_runner("dask", workers=2))
    assert digest == run_of(there(model.config(), str(tables["training"])).run_id).output("model").digest
    assert [f"train {place}" for place in places] == calls()


def test_killed_process_loses_no_finished_place(
    tmp_path: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the kill of a process its chunk goes on where it was: what was trained in it is not trained again."""
    training = write_tables(tmp_path / "tables", places=8)["training"]
    places = sorted(pd.read_csv(training)["location"].unique())
    monkeypatch.setenv("KILL_AT", places[7])
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    model = find("placed_function")
    train = model.train.with_options(task_runner=model.task_runner("processes", workers=1))
    train(model.config(), str(training))
    assert sorted([f"train {place}" for place in places] + [f"train {places[7]}"]) == calls()


def test_place_that_kills_its_process(
    tmp_path: Path, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a chunk whose process is killed each time, what was trained counts as trained: only the others have failed."""
    training = write_tables(tmp_path / "tables", places=8)["training"]
    places = sorted(pd.read_csv(training)["location"].unique())
    monkeypatch.setenv("KILL_AT", places[7])
    model = find("placed_function")
    train = model.train.with_options(task_runner=model.task_runner("processes", workers=1))
    with pytest.raises(PlacesFailed, match=r"No model for 1 of 8 places") as failure:
        train(model.config(), str(training))
    assert [places[7]] == list(failure.value.reasons)
    assert "killed" in failure.value.reasons[places[7]]


def test_worker_with_another_store(
    tmp_path: Path, tables: dict[str, Path], calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker has put into a store of its own, which has the data too, is told, and is no part of a model."""
    file = tmp_path / "astray.py"
    elsewhere = f"import multiprocessing\nif multiprocessing.parent_process():\n    os.environ['{SETTINGS}STORAGE_URL']"
    astray = f"{elsewhere} = {str(tmp_path / 'elsewhere')!r}\n"
    file.write_text(MODELS.with_name("places.py").read_text().replace("PlacedConfig", "AstrayConfig") + astray)
    model: Any = load_model(f"{file}:placed_function")
    with monkeypatch.context() as patch:
        patch.setenv(f"{SETTINGS}STORAGE_URL", str(tmp_path / "elsewhere"))
        patch.setenv(f"{SETTINGS}HOME", str(tmp_path / "other"))
        model.train(model.config(shift=1.0), str(tables["training"]))
    train = model.train.with_options(task_runner=model.task_runner("processes", workers=1))
    with pytest.raises(PlacesFailed, match=rf"No model for {PLACES} of {PLACES} places(?s:.*)STORAGE_URL") as failure:
        train(model.config(), str(tables["training"]))
    assert PLACES == len(failure.value.reasons)


@pytest.mark.parametrize("kind", ["placed_function", "placed_shell"])
@pytest.mark.parametrize("strategy", ["refit", "train_once"])
def test_backtest(kind: str, strategy: str, tables: dict[str, Path], calls: Callable[[], list[str]]) -> None:
    """A backtest trains each place in each fold, and scores as that of one model of means does."""
    model, everywhere = find(kind), find("everywhere")
    plan = {"periods": 2, "splits": 2, "strategy": strategy, "pictures": False, "baselines": []}
    result = model.backtest(model.config(), str(tables["training"]), plan=plan)
    fits = 1 if strategy == "train_once" else 2
    assert fits * PLACES == len([one for one in calls() if one.startswith("train")])
    expected = everywhere.backtest(everywhere.config(), str(tables["training"]), plan=plan)
    assert pytest.approx(expected.metrics) == result.metrics


def test_update_goes_on_for_each_place(tables: dict[str, Path], calls: Callable[[], list[str]]) -> None:
    """The strategy update goes on with the model of each place."""
    model = find("placed_function")
    plan = {"periods": 2, "splits": 3, "strategy": "update", "pictures": False, "baselines": []}
    result = model.backtest(model.config(), str(tables["training"]), plan=plan)
    assert 2 * PLACES == len([one for one in calls() if one.startswith("update")])
    assert {"done": 3, "reused": 0, "failed": 0} == result.folds


def test_backtest_names_the_place_that_fails(
    tables: dict[str, Path], places: list[str], calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold in which a place fails is a failed fold that names the place."""
    model = find("placed_function")
    monkeypatch.setenv("FAIL_FOR", places[2])
    with pytest.raises(BacktestFailed, match=f"No model for 1 of {PLACES} places(.|\n)*- {places[2]}: ZeroDivision"):
        model.backtest(model.config(), str(tables["training"]), plan={"periods": 2, "splits": 2, "pictures": False})


def test_retraining_promotes(tables: dict[str, Path], calls: Callable[[], list[str]]) -> None:
    """A retraining with a gate registers the models of all places as one version, and trains only what is new."""
    model = find("placed_function")
    gate = {"rules": [{"within": {"metric": "coverage_90", "low": 0, "high": 1}}], "plan": {"periods": 2, "splits": 2}}
    first = model.retrain(model.config(), str(tables["training"]), gate=gate)
    assert first.promoted
    calls()
    assert not model.retrain(model.config(), str(tables["training"])).is_new
    assert [] == calls()
    ahead = model.predict("placed_function@champion", str(tables["historic"]), str(tables["future"]))
    assert PLACES == frame_of(ahead.artifact_id)["location"].nunique()


def test_provinces_of_vietnam(shared: Path, tmp_path: Path, calls: Callable[[], list[str]]) -> None:
    """Of 57 provinces with sixteen years of data each has its model; a corrected count trains one of them again."""
    table = pd.read_csv(shared / "vnm_dengue_monthly/vietnam_monthly.csv", dtype={"time_period": str})
    ahead = table["time_period"] > "2010-09"
    files = {name: tmp_path / f"{name}.csv" for name in ("first", "second", "future")}
    table[~ahead].to_csv(files["first"], index=False)
    corrected = (table["location"] == "QUANG NINH") & (table["time_period"] == "2010-09")
    assert 1 == corrected.sum()
    table[~ahead].assign(disease_cases=table["disease_cases"].mask(corrected, 1e3)).to_csv(files["second"], index=False)
    table[ahead].drop(columns="disease_cases").to_csv(files["future"], index=False)
    model = find("placed_function")
    model.train(model.config(), str(files["first"]))
    assert 57 == len(calls())
    model.train(model.config(), str(files["second"]))
    assert ["train QUANG NINH"] == calls()
    forecast = predict(model, {"historic": files["second"], "future": files["future"]})
    assert (3 * 57, 57) == (len(forecast), forecast["location"].nunique())


def test_rows_of_a_place_have_a_digest_of_their_own() -> None:
    """It changes with a value, a row or a column of that place, and not with what other places have."""
    frame = pd.DataFrame({"location": ["A", "A", "B"], "time_period": ["1", "2", "1"], "cases": [1, 2, 3]})
    digests = digest_rows(frame)
    gappy = digest_rows(frame.assign(cases=[1, 2, None]))
    assert (digests["A"], True) == (gappy["A"], digests["B"] != gappy["B"])
    for changed in (frame.assign(cases=[1, 5, 3]), frame.drop(index=1), frame.rename(columns={"cases": "case"})):
        assert digests["A"] != digest_rows(changed)["A"]


def test_page_of_a_run_says_which_places_are_new() -> None:
    """The summary of a training says how many places were trained, and what its author says of the model."""
    facts = {"trained_places": ["A", "B", "C"], "about": {"author": "An office"}}
    model = ArtifactRef(
        id=new_id(), kind="training_workspace", digest=digest_of(b""), size=1, media_type="x", metadata=facts
    )
    run = RunFact(
        id=new_id(),
        flow="train",
        model="rain",
        status="completed",
        outputs=(Edge(role="model", artifact=model),),
        metrics={"reused_places": 2.0},
    )
    page = summarise(run)
    assert "One model for each of 3 places: 1 trained in this run, 2 unchanged" in page
    assert "| author | An office |" in page
