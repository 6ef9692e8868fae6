"""Time limits and retries that the user sets on a flow."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command_line import write_tables
from prefect.client.orchestration import get_client
from server_api import eventually

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig, Project, ShellModelRunner, open_resources
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import list_artifacts, list_runs

LIMIT = 3.0


class LimitConfig(ModelConfig):
    """No settings."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tables(tmp_path_factory.mktemp("tables"))["training"])


def _model(name: str, on_train: Callable[..., Any]) -> Model:
    return Model(name=name, config=LimitConfig, runner=FunctionalModelRunner(on_train, lambda *_: None))


def _only_run() -> RunFact:
    (run,) = list_runs(open_resources().database)
    return run


async def _state_of(flow_run_id: str | None) -> str | None:
    async with get_client() as client:
        state = (await client.read_flow_run(flow_run_id)).state
        return state.name if state else None


async def _hang(config: Any, data: Any, geo: Any = None) -> None:
    await asyncio.Event().wait()


def test_run_over_its_time_has_failed(server: str, home: Path, data: str) -> None:
    """A run that takes longer than `timeout_seconds` is recorded as failed, with what it had read, and says why."""
    with pytest.raises(TimeoutError):
        _model("hanging", _hang).train.with_options(timeout_seconds=LIMIT)(LimitConfig(), data)
    run = _only_run()
    assert ("failed", ["data"], ()) == (run.status, [edge.role for edge in run.inputs], run.outputs)
    assert "took longer than its time limit" in str(run.error)
    assert "TimedOut" == asyncio.run(_state_of(run.flow_run_id))


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """A model of which one step stands still in a thread until it is let go, and the data to train it with."""

    model: Model
    data: str
    free: Callable[[], object]


class _Unwritable:
    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def __reduce__(self) -> tuple[type, tuple[()]]:
        self._gate.wait(60)
        return dict, ()


@pytest.fixture
def stuck(request: pytest.FixtureRequest, data: str, tmp_path: Path) -> Iterator[Stuck]:
    gate = threading.Event()

    def on_train(config: Any, data: Any, geo: Any = None) -> Any:
        if request.param == "fit":
            gate.wait(60)
        return _Unwritable(gate)

    pipe = tmp_path / "never.csv"
    os.mkfifo(pipe)
    model = _model(f"stuck-{request.param}", on_train)
    if request.param == "load":
        # Whoever opens the pipe to read waits until somebody writes.
        yield Stuck(model=model, data=str(pipe), free=lambda: os.close(os.open(pipe, os.O_WRONLY)))
    else:
        yield Stuck(model=model, data=data, free=gate.set)


@pytest.mark.parametrize("stuck", ["load", "fit", "store"], indirect=True)
def test_time_limit_holds_at_each_step(server: str, home: Path, stuck: Stuck) -> None:
    """A step that stands still in a thread does not keep a run beyond its time: it has failed, and says why."""
    flow = stuck.model.train.with_options(timeout_seconds=LIMIT)
    database, told = open_resources().database, list[list[str]]()

    def free_once_recorded() -> None:
        told.append(eventually(lambda: [str(run.status) for run in list_runs(database)], ["failed"].__eq__))
        stuck.free()  # asyncio waits for its threads at the end

    watcher = threading.Thread(target=free_once_recorded)
    watcher.start()
    with pytest.raises(TimeoutError):
        flow(LimitConfig(), stuck.data)
    watcher.join()
    run = _only_run()
    assert ([["failed"]], ()) == (told, run.outputs)
    assert "took longer than its time limit" in str(run.error)
    assert "TimedOut" == asyncio.run(_state_of(run.flow_run_id))


def test_time_limit_ends_the_command(server: str, home: Path, data: str, tmp_path: Path) -> None:
    """The command of a run that takes too long is ended with it."""
    (tmp_path / "hang.py").write_text(
        "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    told = tmp_path / "pid"
    runner = ShellModelRunner(
        f"{sys.executable} -S -E hang.py {told}", "true", project=Project(folder=tmp_path, include=["hang.py"])
    )
    hanging = Model(name="commanded", config=LimitConfig, runner=runner)
    with pytest.raises(TimeoutError):
        hanging.train.with_options(timeout_seconds=LIMIT)(LimitConfig(), data)
    assert "failed" == _only_run().status
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


def test_retry_after_the_time_limit_makes_one_model(server: str, home: Path, data: str) -> None:
    """A run that took too long and is retried is one run with one model."""
    attempts: list[int] = []

    async def hang_once(config: Any, data: Any, geo: Any = None) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            await asyncio.Event().wait()
        return "trained"

    flow = _model("patient", hang_once).train.with_options(timeout_seconds=LIMIT, retries=1)
    state = flow(LimitConfig(), data, return_state=True)
    run = _only_run()
    assert (2, "Completed", "completed", None) == (len(attempts), state.name, run.status, run.error)
    assert ["model"] == [edge.role for edge in run.outputs]
    assert 1 == len(list_artifacts(open_resources().database, kind="training_workspace"))
