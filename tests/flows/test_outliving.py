"""Lineage after Prefect has forgotten: every question still has its answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from command_line import CommandLine, model, write_tables
from prefect.settings import PREFECT_API_URL, temporary_settings
from server_api import connect, eventually

from chapkit_flows import load_model, open_resources
from chapkit_flows.flows.results import PredictResult, TrainResult
from chapkit_flows.lineage.query import get_config, get_run


@dataclass(frozen=True, kw_only=True)
class Made:
    """One training of the shell model, and one prediction with it."""

    trained: TrainResult
    predicted: PredictResult
    out: Path

    def questions(self) -> Iterator[tuple[str, ...]]:
        """All that one may ask about them."""
        for run in (self.trained, self.predicted):
            yield "runs", "show", run.run_id
            yield "runs", "show", str(run.flow_run_id)
            for way in ("--up", "--down"):
                yield "lineage", run.artifact_id, way
            yield "lineage", run.run_id
            yield "artifacts", "show", run.artifact_id
            yield "artifacts", "download", run.artifact_id, "--out", str(self.out / run.artifact_id)
        yield "runs", "list"
        yield "runs", "list", "--where", 'model = "shell" and metric.fit_seconds >= 0 and status = "completed"'
        yield "artifacts", "list"
        yield "artifacts", "list", "--where", 'kind = "prediction" and model ~ "shel"'
        yield "artifacts", "list", "--kind", "dataset"


@pytest.fixture
def made(server: str, home: Path, tmp_path: Path) -> Made:
    """What is asked about."""
    tables = write_tables(tmp_path)
    shell = load_model(model("shell"))
    trained = shell.train(shell.config(label="kept"), str(tables["training"]))
    predicted = shell.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    return Made(trained=trained, predicted=predicted, out=tmp_path)


def _answers(cli: CommandLine, made: Made, round_: int) -> dict[tuple[str, ...], object]:
    """What the command line says, and the bytes that it downloads."""
    answers: dict[tuple[str, ...], object] = {}
    out = made.out / f"round{round_}"
    out.mkdir()
    for question in made.questions():
        arguments = [argument.replace(str(made.out), str(out)) for argument in question]
        ended = cli(*arguments, "--json")
        assert 0 == ended.code, ended.err
        answers[question] = {key: value for key, value in ended.json.items() if key not in ("out", "path", "to")}
    answers["files",] = {file.relative_to(out): file.read_bytes() for file in out.rglob("*") if file.is_file()}
    resources = open_resources()
    config = get_run(resources.database, made.trained.run_id).config
    assert config is not None
    answers["config",] = get_config(resources.database, config.digest)
    return answers


def _forget(api: httpx.Client, flow_run_id: str) -> None:
    """Delete what the server knows of a run: its artifacts, its logs, the run itself."""
    of_run = {"flow_run_id": {"any_": [flow_run_id]}}
    logs = api.post("/logs/filter", json={"logs": of_run}).raise_for_status().json()
    assert logs, "there was something to forget"
    for artifact in api.post("/artifacts/filter", json={"artifacts": of_run}).raise_for_status().json():
        api.delete(f"/artifacts/{artifact['id']}").raise_for_status()
    api.delete(f"/flow_runs/{flow_run_id}").raise_for_status()
    gone = eventually(lambda: api.get(f"/flow_runs/{flow_run_id}").status_code, lambda code: code == 404)
    assert 404 == gone


def test_every_answer_outlives_prefect(server: str, made: Made, cli: CommandLine) -> None:
    """After Prefect's runs, logs and artifacts are deleted, and with no server at all, the answers are the same."""
    before = _answers(cli, made, 0)
    assert len(before) > 15
    with connect(server) as api:
        for run in (made.trained, made.predicted):
            assert run.flow_run_id is not None
            eventually(
                lambda run=run: api.post(
                    "/logs/filter", json={"logs": {"flow_run_id": {"any_": [run.flow_run_id]}}}
                ).json(),
                bool,
            )
            _forget(api, run.flow_run_id)
    assert before == _answers(cli, made, 1)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert before == _answers(cli, made, 2)
