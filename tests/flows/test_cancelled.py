"""Runs that are stopped from outside, within the test process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import model, write_tables
from server_api import eventually

from chapkit_flows import FunctionalModelRunner, Model, load_model, open_resources
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.flows.model import ModelFlow
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import list_runs


@pytest.fixture
def data(server: str, home: Path, tmp_path: Path) -> str:
    """Training data."""
    return str(write_tables(tmp_path)["training"])


async def _cancel(train: ModelFlow, config: Any, data: str, *, once: Callable[[], bool]) -> None:
    """Cancel a training once something is so."""
    running = asyncio.ensure_future(train(config, data))
    await asyncio.to_thread(eventually, once, bool)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def _last() -> RunFact:
    return list_runs(open_resources().database)[0]


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The shell model, whose train command says something and hangs."""
    monkeypatch.setenv("FAULT", "hangs")
    shell = load_model(model("shell"))
    assert isinstance(shell, Model)
    return shell


async def test_cancelled_command_is_kept(data: str, hanging: Model, caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled run keeps what its command left, says where, and is recorded as cancelled."""
    await _cancel(hanging.train, hanging.config(), data, once=lambda: "counting places" in caplog.text)
    run = _last()
    (left,) = run.outputs
    assert ("cancelled", "failed_workspace", "failed") == (run.status, left.role, left.artifact.status)
    assert (
        f"The run was cancelled.\nWhat it left is kept: chapkit-flows artifacts download {left.artifact.id}"
        == run.error
    )
    assert {".run/train.stdout", "data.csv"} <= {
        entry.path for entry in list_tree(open_resources().store, left.artifact.digest)
    }


async def test_time_limit_of_a_flow_is_a_failure(data: str, hanging: Model) -> None:
    """A flow that takes longer than its time limit has failed, and what its command left is kept."""
    limited = hanging.train.with_options(timeout_seconds=3)
    with pytest.raises(TimeoutError):
        await limited(hanging.config(), data)
    run = _last()
    assert ("failed", ["failed_workspace"]) == (run.status, [edge.role for edge in run.outputs])
    assert str(run.error).startswith("The run took longer than its time limit")


async def test_blocking_function_is_not_waited_for(data: str, tmp_path: Path) -> None:
    """A training that blocks its thread is left behind: the run is recorded as cancelled at once."""
    begun = tmp_path / "begun"

    def on_train(config: Any, data: Any, geo: Any = None) -> None:
        begun.touch()
        time.sleep(30)

    mean = load_model(model("mean"))
    blocking = Model(name="blocking", config=mean.config, runner=FunctionalModelRunner(on_train, on_train))
    before = time.monotonic()
    await _cancel(blocking.train, blocking.config(), data, once=begun.exists)
    assert time.monotonic() - before < 25
    assert ("cancelled", "The run was cancelled.") == (_last().status, _last().error)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stopped_command_line(data: str, tmp_path: Path, sign: signal.Signals) -> None:
    """A training at the command line that is stopped says so in a line, and is recorded as cancelled."""
    program = [sys.executable, "-m", "chapkit_flows.cli.main", "train", model("shell"), "--data", data]
    errors = tmp_path / "stderr"
    with errors.open("wb") as sink:
        process = subprocess.Popen(program, env=os.environ | {"FAULT": "hangs"}, stdout=sink, stderr=sink)
    eventually(lambda: "counting places" in errors.read_text() or process.poll() is not None, bool)
    process.send_signal(sign)
    code = process.wait(60)
    said = errors.read_text()
    assert ("cancelled", ["failed_workspace"]) == (_last().status, [edge.role for edge in _last().outputs]), said
    assert "Traceback" not in said
    assert "Stopped." in said
    assert {signal.SIGTERM: 143, signal.SIGINT: 130}[sign] == code
