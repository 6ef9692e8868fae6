"""How the flows call a model's code: which callbacks, in which thread, on which loop."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest

from chapkit_flows import BaseModelRunner, Diagnostic, FunctionalModelRunner
from chapkit_flows.errors import RunnerFailed
from chapkit_flows.models.runner import initialised, settle
from chapkit_flows.models.worker import run_in_worker

DATA = pd.DataFrame({"time_period": ["2020-01"], "location": ["001"], "disease_cases": [1.0]})
PATIENCE = 30.0


async def call(runner: BaseModelRunner, method: Callable[[BaseModelRunner], Any]) -> Any:
    """Call a method of a runner as the flows do."""

    async def work() -> Any:
        async with initialised(runner):
            return await settle(method(runner))

    return await run_in_worker(work)


def functions(*, asynchronous: bool) -> FunctionalModelRunner:
    """A runner of four functions that return what they were given."""

    def give(*arguments: Any) -> Any:
        return arguments

    async def give_later(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return arguments

    function = give_later if asynchronous else give
    return FunctionalModelRunner(function, function, function, function)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async def"])
async def test_functions_get_what_the_flow_has(asynchronous: bool) -> None:
    """Each function of a functional runner is called with chapkit's arguments in chapkit's order."""
    runner = functions(asynchronous=asynchronous)
    past, ahead = DATA.copy(), DATA.copy()
    expected_train, expected_predict = ("config", DATA, "geo"), ("config", "model", past, ahead, "geo")
    trained = await call(runner, lambda r: r.on_train("config", DATA, "geo"))
    predicted = await call(runner, lambda r: r.on_predict("config", "model", past, ahead, "geo"))
    checked = await call(runner, lambda r: r.on_validate_train("config", DATA, "geo"))
    checked_too = await call(runner, lambda r: r.on_validate_predict("config", past, ahead, "geo"))
    for expected, actual in (
        (expected_train, trained),
        (expected_predict, predicted),
        (expected_train, checked),
        (("config", past, ahead, "geo"), checked_too),
    ):
        assert len(expected) == len(actual)
        assert all(left is right for left, right in zip(expected, actual, strict=True))


async def test_geo_is_optional_and_checks_are_too() -> None:
    """A runner of two functions finds nothing wrong, and passes None for polygons that the run does not have."""
    runner = FunctionalModelRunner(lambda *given: given, lambda *given: given)
    assert (None, None) == (runner.on_train("c", DATA)[-1], runner.on_predict("c", "m", DATA, DATA)[-1])
    assert ([], []) == (runner.on_validate_train("c", DATA), runner.on_validate_predict("c", DATA, DATA))


async def test_findings_of_a_function_come_back() -> None:
    """What a function finds is what the flow gets."""
    found = [Diagnostic.warning("odd", "It is odd.")]
    runner = FunctionalModelRunner(print, print, lambda *given: found)
    assert found is await call(runner, lambda r: r.on_validate_train("c", DATA))


@dataclass
class Recorder(BaseModelRunner):
    """A runner that writes down what is called, and where."""

    fails_in: str = ""
    called: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def _note(self, name: str) -> None:
        self.called.append(name)
        self.threads.append(threading.current_thread())
        if name == self.fails_in:
            raise ZeroDivisionError(name)

    def on_init(self) -> None:
        self._note("on_init")

    def on_cleanup(self) -> None:
        self._note("on_cleanup")

    def on_train(self, config: Any, data: pd.DataFrame, geo: Any = None) -> str:
        self._note("on_train")
        return "model"

    def on_predict(self, config: Any, model: Any, historic: Any, future: Any, geo: Any = None) -> Any:
        self._note("on_predict")


class AsyncRecorder(Recorder):
    """The same with coroutine functions."""

    loops: tuple[asyncio.AbstractEventLoop, ...] = ()

    async def _later(self, name: str) -> None:
        await asyncio.sleep(0)
        self.loops += (asyncio.get_running_loop(),)
        self._note(name)

    async def on_init(self) -> None:
        await self._later("on_init")

    async def on_cleanup(self) -> None:
        await self._later("on_cleanup")

    async def on_train(self, config: Any, data: pd.DataFrame, geo: Any = None) -> str:
        await self._later("on_train")
        return "model"


@pytest.mark.parametrize("runner_type", [Recorder, AsyncRecorder])
async def test_init_and_cleanup_frame_the_callback_in_one_thread(runner_type: type[Recorder]) -> None:
    """on_init, the callback and on_cleanup run in this order in one thread, which is not the flow's."""
    runner = runner_type()
    assert "model" == await call(runner, lambda r: r.on_train("c", DATA))
    assert ["on_init", "on_train", "on_cleanup"] == runner.called
    assert 1 == len(set(runner.threads))
    assert threading.current_thread() is not runner.threads[0]
    if isinstance(runner, AsyncRecorder):
        assert 1 == len(set(runner.loops))
        assert asyncio.get_running_loop() is not runner.loops[0]


@pytest.mark.parametrize("runner_type", [Recorder, AsyncRecorder])
@pytest.mark.parametrize(
    ("fails_in", "called"),
    [
        ("on_init", ["on_init", "on_cleanup"]),
        ("on_train", ["on_init", "on_train", "on_cleanup"]),
        ("on_cleanup", ["on_init", "on_train", "on_cleanup"]),
    ],
)
async def test_cleanup_is_called_after_failures(runner_type: type[Recorder], fails_in: str, called: list[str]) -> None:
    """on_cleanup is called whatever failed before, and the failure comes through as it was raised."""
    runner = runner_type(fails_in)
    with pytest.raises(ZeroDivisionError, match=fails_in):
        await call(runner, lambda r: r.on_train("c", DATA))
    assert called == runner.called


async def test_failure_of_the_model_is_not_hidden_by_one_in_cleanup() -> None:
    """When on_cleanup fails after on_train did, the report still shows what on_train raised."""

    class Untidy(Recorder):
        def on_cleanup(self) -> None:
            raise OSError("cannot tidy up")

    with pytest.raises((ZeroDivisionError, OSError)) as failed:
        await call(Untidy("on_train"), lambda r: r.on_train("c", DATA))
    chain = [failed.value, failed.value.__context__]
    assert any(isinstance(error, ZeroDivisionError) for error in chain)


async def test_blocking_callback_leaves_the_loop_free() -> None:
    """The flow's loop ticks on while a callback blocks: the callback waits for the ticks, and gets them."""
    ticks, ticked = 0, threading.Event()

    async def tick() -> None:
        nonlocal ticks
        while ticks < 100:
            ticks += 1
            await asyncio.sleep(0)
        ticked.set()

    runner = FunctionalModelRunner(lambda *given: ticked.wait(PATIENCE), print)
    trained, _ = await asyncio.gather(call(runner, lambda r: r.on_train("c", DATA)), tick())
    assert trained


async def test_worker_passes_context_results_and_exceptions() -> None:
    """Context variables go into the thread; results and exceptions come out."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("of the flow")

    async def read() -> str:
        return variable.get()

    async def fail() -> None:
        raise LookupError("nothing there")

    assert "of the flow" == await run_in_worker(read)
    with pytest.raises(LookupError, match="nothing there"):
        await run_in_worker(fail)


async def _cancel(function: Callable[[], Awaitable[Any]], started: threading.Event) -> None:
    """Run a coroutine function in a worker, and cancel it once it has started."""
    task = asyncio.create_task(run_in_worker(function))
    assert await asyncio.to_thread(started.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_the_caller_cancels_the_coroutine() -> None:
    """A cancelled flow stops an asynchronous callback where it waits, and waits until it has stopped."""
    started, cancelled = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            cancelled.set()
            raise

    await _cancel(wait, started)
    assert cancelled.is_set()


async def test_exit_in_the_model_does_not_end_the_flow() -> None:
    """A model that calls sys.exit fails like one that raises an exception; the flow's own loop runs on."""
    runner = FunctionalModelRunner(lambda *given: sys.exit("no data today"), print)
    with pytest.raises(RunnerFailed, match=r"sys\.exit.*no data today"):
        await call(runner, lambda r: r.on_train("c", DATA))


async def test_cancellation_waits_for_cleanup() -> None:
    """An asynchronous on_cleanup runs to its end when the run is cancelled."""
    started = threading.Event()

    class Slow(AsyncRecorder):
        async def on_train(self, config: Any, data: pd.DataFrame, geo: Any = None) -> str:
            started.set()
            await asyncio.sleep(PATIENCE)
            return "never"

        async def on_cleanup(self) -> None:
            await asyncio.sleep(0.01)
            self.called.append("on_cleanup")

    runner = Slow()

    async def work() -> None:
        async with initialised(runner):
            await settle(runner.on_train("c", DATA))

    await _cancel(work, started)
    assert ["on_init", "on_cleanup"] == runner.called


async def test_one_runner_serves_runs_at_once() -> None:
    """Two runs of one runner do not wait for each other."""
    meeting = threading.Barrier(2)
    runner = FunctionalModelRunner(lambda *given: meeting.wait(PATIENCE), print)
    places = await asyncio.gather(*(call(runner, lambda r: r.on_train("c", DATA)) for _ in range(2)))
    assert [0, 1] == sorted(places)


def test_runner_without_callbacks_cannot_be_made() -> None:
    """A subclass that lacks on_train or on_predict is refused where it is made, by name."""

    class Half(BaseModelRunner):
        def on_train(self, config: Any, data: pd.DataFrame, geo: Any = None) -> str:
            return "model"

    with pytest.raises(TypeError, match="on_predict"):
        Half()  # type: ignore[abstract]  # that is what is tested
