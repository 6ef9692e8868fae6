"""What a run tells: the events, their catalogue, and the hooks of third parties."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import model, write_tables

from chapkit_flows import Model, load_model, open_resources, registry
from chapkit_flows.errors import ChapkitFlowsError, RunnerFailed, ValidationFailed
from chapkit_flows.flows import events
from chapkit_flows.flows.events import RunEvent, events_of_failure
from chapkit_flows.lineage.assignments import Decision
from chapkit_flows.lineage.query import list_runs

DOCS = Path(__file__).parents[2] / "docs/events.md"
LISTENER = """
heard = []

def listen(event):
    heard.append(event)

def break_down(event):
    raise ZeroDivisionError("the pager is broken")
"""
ENTRY_POINTS = """
[chapkit_flows.events]
a-broken-one = tiny_listener:break_down
a-missing-one = tiny_listener:nowhere
listen = tiny_listener:listen
"""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A story of all that can happen to a model: the first event of each name, and where its data was."""

    events: dict[str, RunEvent]
    data: Path


@contextmanager
def _listening(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RunEvent]]:
    """What an installed distribution hears; two more of its hooks are broken."""
    information = folder / "tiny_listener-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "tiny_listener.py").write_text(LISTENER)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-listener\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(folder)
    events._find_hooks.cache_clear()
    module = importlib.import_module("tiny_listener")
    module.heard.clear()
    yield module.heard
    events._find_hooks.cache_clear()


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[RunEvent]]:
    """What is heard in this test."""
    with _listening(tmp_path / "site-packages", monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def story(server: str, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Two trainings, a prediction, and failures."""
    folder = tmp_path_factory.mktemp("story")
    tables = write_tables(folder)
    with pytest.MonkeyPatch.context() as monkeypatch, _listening(folder / "site-packages", monkeypatch) as found:
        monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(folder / "home"))
        mean = load_model(model("mean"))
        trained = mean.train(mean.config(), str(tables["training"]))
        mean.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
        tables["training"].write_text(tables["training"].read_text() + "\n")
        second = mean.train(mean.config(), str(tables["training"]))
        _promote(mean, [trained.artifact_id, second.artifact_id], tables)
        with pytest.raises(ValidationFailed):
            mean.train(mean.config(label="refused"), str(tables["training"]))
        monkeypatch.setenv("FAULT", "train raises")
        with pytest.raises(RunnerFailed):
            mean.train(mean.config(), str(tables["training"]))
        run = list_runs(open_resources().database)[0]
        for status in ("cancelled", "crashed"):
            found.extend(events_of_failure(replace(run, status=status)))
        return Told(events={event.name: event for event in reversed(found)}, data=tables["training"])


def _promote(mean: Model, trained: list[str], tables: dict[str, Path]) -> None:
    """The second of two versions passes the gate of a scoring: it is proposed, and then promoted."""
    resources = open_resources()
    versions = [registry.register(resources, artifact_id, by="ana") for artifact_id in trained]
    decision = Decision(actor="ana", reason="the first")
    registry.promote(resources, versions[0], alias="champion", expected=None, decision=decision)
    mean.predict("mean@2", str(tables["historic"]), str(tables["future"]))
    truth = tables["future"].with_name("truth.csv")
    pd.read_csv(tables["future"], dtype={"time_period": str}).assign(disease_cases=7).to_csv(truth, index=False)
    for promote in (False, True):
        gate = {"rules": [{"within": {"metric": "crps", "low": 0}}], "promote": promote}
        done = mean.score(str(truth), gate=gate)
        assert "mean@2" == done.passed


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Path]:
    """Tables for the small models."""
    return write_tables(tmp_path)


def _catalogue() -> dict[str, set[str]]:
    """The fields of each event in the documentation."""
    common, *chapters = re.split(r"^### ", DOCS.read_text().split("## Hooks")[0], flags=re.MULTILINE)
    every = set(re.findall(r"^\| `(\w+)`", common, flags=re.MULTILINE))
    fields = {chapter.split("`")[1]: re.findall(r"^\| `(\w+)`", chapter, flags=re.MULTILINE) for chapter in chapters}
    return {name: every | set(own) for name, own in fields.items()}


def test_catalogue_is_what_runs_tell(story: Told) -> None:
    """The documentation lists exactly the events that there are, with exactly their fields."""
    assert _catalogue() == {name: set(event.payload) for name, event in story.events.items()}


def test_events_link_to_runs_and_artifacts(story: Told) -> None:
    """An event leads to its run, to its Prefect run and to the artifacts that the run read and wrote."""
    event = story.events["chapkit.prediction.created"]
    related = {item["prefect.resource.role"]: item["prefect.resource.id"] for item in event.related}
    payload = event.payload
    assert "chapkit.model.mean" == event.resource["prefect.resource.id"]
    assert {"run", "flow-run", "model", "historic", "future", "prediction", "plot"} == set(related)
    assert f"chapkit.run.{payload['run_id']}" == related["run"]
    assert f"prefect.flow-run.{payload['flow_run_id']}" == related["flow-run"]
    assert f"chapkit.artifact.{payload['artifact_id']}" == related["prediction"]
    assert f"chapkit.artifact.{payload['training_artifact_id']}" == related["model"]


def test_changed_dataset(story: Told) -> None:
    """A file with other content than when it was last read is told of once, with what it was before."""
    event = story.events["chapkit.dataset.changed"]
    before = story.events["chapkit.model.trained"]
    data = next(item for item in before.related if item["prefect.resource.role"] == "data")
    assert (str(story.data), "data") == (event.payload["uri"], event.payload["role"])
    assert f"chapkit.artifact.{event.payload['previous_artifact_id']}" == data["prefect.resource.id"]
    assert f"chapkit.artifact.{event.payload['artifact_id']}" == event.resource["prefect.resource.id"]
    assert str(story.data) == event.resource["chapkit.uri"]


def test_failures_say_what_not_with_what(story: Told) -> None:
    """A failure tells the class of its error and the codes of findings, never a message that may repeat a secret."""
    findings: list[dict[str, Any]] = story.events["chapkit.validation.failed"].payload["findings"]
    assert [{"severity": "error", "code": "label_refused", "field": "config.label"}] == findings
    assert "ValidationFailed" == story.events["chapkit.run.failed"].payload["error"]


def test_unchanged_data_is_no_news(server: str, home: Path, heard: list[RunEvent], tables: dict[str, Path]) -> None:
    """A run that reads what was read before tells of no change."""
    mean = load_model(model("mean"))
    for _ in range(2):
        mean.train(mean.config(), str(tables["training"]))
    assert ["chapkit.model.trained"] * 2 == [event.name for event in heard]


def test_broken_hook_is_named_and_the_run_goes_on(
    server: str, home: Path, heard: list[RunEvent], tables: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A hook that raises or cannot be imported is logged with its name; the run completes and others are called."""
    mean = load_model(model("mean"))
    with caplog.at_level(logging.ERROR):
        assert "completed" == mean.train(mean.config(), str(tables["training"])).status
    assert 1 == len(heard)
    assert "a-broken-one (tiny_listener:break_down)" in caplog.text
    assert "a-missing-one" in caplog.text


def test_no_secret_is_told(server: str, home: Path, heard: list[RunEvent], tables: dict[str, Path]) -> None:
    """Neither what a secret field of a config holds nor the message of an error that repeats it is in an event."""
    secretive = load_model(f"{Path(__file__).parent}/models/secretive.py:secretive")
    config = secretive.config(token="canary-in-a-token")
    secretive.train(config, str(tables["training"]))
    with pytest.raises(ChapkitFlowsError):
        secretive.train(config, "http://user:canary-in-a-url@127.0.0.1:9/x.csv")
    assert ["chapkit.model.trained", "chapkit.run.failed"] == [event.name for event in heard]
    assert "canary" not in repr(heard)
