"""A model that takes long shows its progress in the Prefect UI."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from command_line import write_tables
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from pydantic import SecretStr

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig, open_resources, report_progress
from chapkit_flows.errors import RunnerFailed
from chapkit_flows.lineage.query import list_runs
from chapkit_flows.models.progress import Report, report_line, watching


class PatientConfig(ModelConfig):
    """Settings of a model that waits until its progress was seen."""

    reports: bool = True
    fails: bool = False
    token: SecretStr = SecretStr("")


seen = threading.Event()


def on_train(config: PatientConfig, data: Any, geo: Any = None) -> Any:
    if config.reports:
        report_progress(0.4, f"epoch 4 of 10 {config.token.get_secret_value()}".rstrip())
    assert seen.wait(60)
    if config.fails:
        raise ZeroDivisionError
    return {}


patient = Model(name="patient", config=PatientConfig, runner=FunctionalModelRunner(on_train, lambda *frames: None))


@pytest.fixture
def data(tmp_path: Path) -> str:
    """The path of training data."""
    seen.clear()
    return str(write_tables(tmp_path)["training"])


async def _bars() -> list[Any]:
    """The progress artifacts of the newest run."""
    runs = await asyncio.to_thread(list_runs, open_resources().database)
    if not runs:
        return []
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[runs[0].flow_run_id]))
    async with get_client() as client:
        return [one for one in await client.read_artifacts(artifact_filter=of_run) if one.type == "progress"]


async def _train(data: str, **values: Any) -> Any:
    """Train until a bar is there, look at it, and let the training end."""
    running = asyncio.ensure_future(patient.train(PatientConfig(**values), data))
    while not (bars := await _bars()) and not running.done():
        await asyncio.sleep(0.05)
    seen.set()
    await asyncio.wait([running])
    return bars[0], running


@pytest.mark.usefixtures("server", "home")
async def test_reported_progress(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model reports is shown while it fits, and 100 % when it has."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_PROGRESS_SECONDS", "0.1")
    bar, running = await _train(data)
    assert 40.0 == bar.data
    assert "Fitting patient for 0 s; epoch 4 of 10" == bar.description
    assert "patient-progress" == bar.key
    assert "completed" == running.result().status
    (bar,) = await _bars()
    assert 100.0 == bar.data
    assert bar.description.endswith("epoch 4 of 10 (done)")


@pytest.mark.usefixtures("server", "home")
async def test_progress_tells_no_secret(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model says of its progress is shown with its secrets masked."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_PROGRESS_SECONDS", "0.1")
    bar, _ = await _train(data, token="canary-3fe1")
    assert "epoch 4 of 10 **********" == bar.description.partition("; ")[2]


@pytest.mark.usefixtures("server", "home")
async def test_estimated_progress(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What says nothing is measured by the last fit, and never said to be done before it is."""
    variable = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_PROGRESS_SECONDS"
    monkeypatch.setenv(variable, "0")
    seen.set()
    await patient.train(PatientConfig(reports=False), data)
    assert [] == await _bars()
    seen.clear()
    monkeypatch.setenv(variable, "0.1")
    bar, _ = await _train(data, reports=False)
    assert 95.0 == bar.data
    assert bar.description.endswith("the last fit took 0 s")


@pytest.mark.usefixtures("server", "home")
async def test_progress_of_a_failure(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that fails leaves its bar where it was."""
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_PROGRESS_SECONDS", "0.1")
    _, running = await _train(data, fails=True)
    with pytest.raises(RunnerFailed):
        running.result()
    (bar,) = await _bars()
    assert 40.0 == bar.data
    assert bar.description.endswith("epoch 4 of 10 (stopped)")


@pytest.mark.usefixtures("server", "home")
async def test_short_fit_shows_no_progress(data: str) -> None:
    """A fit of less than five seconds makes no bar."""
    seen.set()
    assert "completed" == (await patient.train(PatientConfig(), data)).status
    assert [] == await _bars()


@pytest.mark.parametrize(
    ("line", "fraction", "message"),
    [
        ("progress: 40%", 0.4, ""),
        ("Progress: 12.5 % epoch 1 of 8", 0.125, "epoch 1 of 8"),
        ("progress: 140%", 1.0, ""),
        ("no progress: 40%", None, ""),
        ("progress: soon", None, ""),
    ],
)
def test_progress_of_scripts(line: str, fraction: float | None, message: str) -> None:
    """A script reports by a line of its output."""
    report = Report()
    with watching(report):
        report_line(line)
    assert (fraction, message) == (report.fraction, report.message)


def test_reports_outside_a_run() -> None:
    """A model that reports can be called without a run; a fraction that is no number is refused."""
    report_progress(0.5)
    with pytest.raises(ValueError, match="write a number from 0 to 1"):
        report_progress(float("nan"))
