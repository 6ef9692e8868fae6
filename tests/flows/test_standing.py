"""Once predictions are scored, the versions that made them stand beside each other, and a gate may move the alias."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import CommandLine, write_tables

from chapkit_flows import Model, load_model, open_resources, registry
from chapkit_flows.errors import UnknownMetric
from chapkit_flows.lineage.assignments import Decision
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.query import get_run, latest_standing, list_runs
from chapkit_flows.lineage.registry import assignments, find_version
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.recovery import rebuild

pytestmark = pytest.mark.usefixtures("server")
TRIED = Path(__file__).parent / "models/tried.py"
RULES = [{"better": {"metric": "crps", "by": 0.1}}]


def load_tried() -> Model:
    model = load_model(f"{TRIED}:tried")
    assert isinstance(model, Model)
    return model


@pytest.fixture(scope="module")
def story(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with three versions: the first is champion and forecasts too much, the second less, the third nothing."""
    folder = tmp_path_factory.mktemp("standing")
    tables = write_tables(folder / "tables")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(folder / "home"))
        monkeypatch.setenv("CALLS", str(folder / "calls.txt"))
        model, resources = load_tried(), open_resources()
        for shift in (500, 0, 1):
            trained = model.train(model.config(shift=shift), str(tables["training"]))
            version = registry.register(resources, trained.artifact_id, by="ana")
            if shift == 500:
                decision = Decision(actor="ana", reason="the first")
                registry.promote(resources, version, alias="champion", expected=None, decision=decision)
        for selector in ("champion", "2"):
            model.predict(f"tried@{selector}", str(tables["historic"]), str(tables["future"]))
        resources.database.close()
    return folder


@pytest.fixture
def tables(story: Path, tmp_path: Path) -> dict[str, Path]:
    """The tables of the story, for this test alone."""
    folder = Path(shutil.copytree(story / "tables", tmp_path / "tables"))
    return {file.stem: file for file in folder.iterdir()}


@pytest.fixture
def tried(story: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model, in a home that is a copy of the story's."""
    shutil.copytree(story / "home", home)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    return load_tried()


@pytest.fixture
def truth(tables: dict[str, Path]) -> Path:
    """What came after the forecasts: the mean of each place, as the second version says."""
    file = tables["future"].with_name("truth.csv")
    past = pd.read_csv(tables["historic"], dtype={"time_period": str})
    means = past.groupby("location")["disease_cases"].mean().round()
    future = pd.read_csv(tables["future"], dtype={"time_period": str})
    pd.concat([past, future.assign(disease_cases=future["location"].map(means))]).to_csv(file, index=False)
    return file


def gate(*, promote: bool) -> dict[str, Any]:
    return {"rules": RULES, "promote": promote}


def champion() -> int:
    return find_version(open_resources().database, "tried", "champion").number


def test_versions_stand_beside_the_champion(tried: Model, truth: Path, cli: CommandLine) -> None:
    """Each version that has scored forecasts shows them beside the champion's; so it is after a rebuild."""
    told = tried.score(str(truth)).standing
    first, second = told["versions"]
    assert ("tried@1", None) == (told["champion"], first["beside"])
    assert pytest.approx(1 - second["crps"] / first["crps"]) == second["beside"]["skill"] > 0.9
    assert 6 == second["beside"]["n_pairs"] == second["rows"]
    listed = cli("models", "list", "--model", "tried", "--json").json["versions"]
    assert [None, second, first] == [one["live"] for one in listed]
    assert "% beside tried@1)" in cli("models", "list").out
    assert "6 forecasts of both" in cli("models", "show", "tried@2").out
    resources = open_resources()
    lost = open_database(f"sqlite:///{truth.parent}/rebuilt.db")
    rebuild(Resources(store=resources.store, database=lost))
    assert latest_standing(resources.database, "tried") == latest_standing(lost, "tried")
    lost.close()


def test_challenger_is_proposed_and_then_promoted(tried: Model, truth: Path) -> None:
    """By default a challenger that passes is only proposed; a gate that promotes gives it the alias, with evidence."""
    proposed = tried.score(str(truth), gate=gate(promote=False))
    assert ("tried@2", 1) == (proposed.passed, champion())
    assert "tried@1 stays champion, as the gate only proposes" in proposed.decision
    promoted = tried.score(str(truth), gate=gate(promote=True))
    assert ("tried@2", 2) == (promoted.passed, champion())
    last = assignments(open_resources().database, "tried")[-1]
    assert (f"run {promoted.run_id}", 1, 2) == (last.actor, last.previous, last.number)
    assert last.evidence is not None
    assert (True, 6) == (last.evidence["passed"], last.evidence["evidence"][0]["n_pairs"])
    made = [edge.artifact.id for run in list_runs(open_resources().database, flow="predict") for edge in run.outputs]
    assert set(last.evidence["candidate"]["predictions"] + last.evidence["champion"]["predictions"]) <= set(made)
    kept = tried.score(str(truth), gate=gate(promote=True))
    assert (None, "No challenger passes the gate by its live forecasts: tried@2 stays champion.") == (
        kept.passed,
        kept.decision,
    )


def test_deleted_challenger_is_not_promoted(tried: Model, truth: Path, cli: CommandLine) -> None:
    """A version in the trash cannot take over, however good it was."""
    deleted = find_version(open_resources().database, "tried", "2").artifact_id
    assert 0 == cli("artifacts", "delete", deleted, "--reason", "x").code
    done = tried.score(str(truth), gate=gate(promote=True))
    assert (None, 1) == (done.passed, champion())


def test_newest_forecast_of_an_origin_counts(tried: Model, tables: dict[str, Path], truth: Path) -> None:
    """A version that has forecast twice from one origin is judged once, and one that has not forecast is not."""
    tried.predict("tried@2", str(tables["historic"]), str(tables["future"]))
    told = tried.score(str(truth)).standing
    assert [("tried@1", 6), ("tried@2", 6)] == [(one["version"], one["rows"]) for one in told["versions"]]


def test_what_a_version_has_learned_from_is_no_forecast(tried: Model, tables: dict[str, Path], truth: Path) -> None:
    """A version that was trained on the truth, and then forecasts what it knows, neither stands nor takes over."""
    trained = tried.train(tried.config(shift=0), str(truth))
    registry.register(open_resources(), trained.artifact_id, by="ana")
    tried.predict("tried@4", str(tables["historic"]), str(tables["future"]))
    done = tried.score(str(truth), gate=gate(promote=True))
    assert ["tried@1", "tried@2"] == [one["version"] for one in done.standing["versions"]]
    assert "tried@2" == done.passed


def test_scores_of_earlier_runs_count(tried: Model, tables: dict[str, Path], truth: Path) -> None:
    """The standing holds what earlier scorings have scored, each prediction by its newest scoring."""
    predictions = [run.output("prediction").id for run in list_runs(open_resources().database, flow="predict")]
    for prediction in predictions:
        last = tried.score(str(truth), prediction)
    assert 2 == len(last.standing["versions"])
    revised = truth.with_name("revised.csv")
    pd.read_csv(truth, dtype={"time_period": str}).assign(
        disease_cases=lambda table: table["disease_cases"] + 9
    ).to_csv(revised, index=False)
    one = tried.score(str(revised), predictions[0])
    after = {place["version"]: place["crps"] for place in one.standing["versions"]}
    assert pytest.approx(one.metrics["crps"]) == after["tried@2"]
    before = {place["version"]: place["crps"] for place in last.standing["versions"]}
    assert before["tried@1"] == after["tried@1"]


def test_refused_gates(tried: Model, truth: Path, cli: CommandLine, tmp_path: Path) -> None:
    """A gate that cannot be judged is refused before anything runs; without a champion nothing is judged."""
    before = len(list_runs(open_resources().database))
    with pytest.raises(UnknownMetric, match="crsp"):
        tried.score(str(truth), gate={"rules": [{"better": {"metric": "crsp"}}]})
    file = tmp_path / "gate.yaml"
    file.write_text("- better: [crps]")
    for arguments, words in (
        (("--gate", file), "its values are"),
        (("--promote",), "Nothing is promoted without a gate"),
    ):
        refused = cli("score", "--model", "tried", "--truth", truth, *arguments)
        assert (2, True) == (refused.code, words in refused.err)
    assert before == len(list_runs(open_resources().database))
    done = tried.score(str(truth), gate=gate(promote=True) | {"alias": "staging"})
    assert (None, "There is no staging: nothing to compare with. Promote a version first.") == (
        done.passed,
        done.decision,
    )
    assert "standing" in {edge.role for edge in get_run(open_resources().database, done.run_id).outputs}
