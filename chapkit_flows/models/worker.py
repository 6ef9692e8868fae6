"""Run a model's code beside the event loop of the flow."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

import anyio
from prefect.exceptions import TerminationSignal

from chapkit_flows.errors import RunnerFailed

T = TypeVar("T")

# Prefect kills a process 30 seconds after it asked it to stop; by then the run must be recorded.
_HEARD_SECONDS = 1.0
_TIDY_SECONDS = 20.0


async def run_in_worker(function: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function in a thread, with an event loop of its own.

    The flow's loop stays free for heartbeats and cancellation, even if the model blocks. Cancelling the
    caller cancels the coroutine in the thread, and waits until it has tidied up; what it raised meanwhile is the
    cause of the caller's exception. Code that blocks its thread cannot be stopped: it is left behind, and ends
    with the process. Context variables (such as Prefect's run) are passed on.

    Raises:
        RunnerFailed: The function called `sys.exit`.
    """
    worker = _Worker(function)
    running = _start(worker.run)
    try:
        return await asyncio.shield(running)
    except (asyncio.CancelledError, TerminationSignal) as stop:
        if running.done():
            raise
        # A time-out of Prefect's cancels whatever is awaited, again and again.
        with anyio.CancelScope(shield=True):
            await worker.stop(running)
        if running.done() and (failure := running.exception()) is not stop:
            raise stop from failure
        raise


async def run_apart(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Run a blocking function in a thread that nobody waits for once the caller is cancelled.

    What it does must be right even if the process ends in its middle.
    """
    return await asyncio.shield(_start(lambda: function(*arguments, **named)))


def _start(function: Callable[[], T]) -> asyncio.Future[T]:
    """Call a function in a thread; the future is no task, so that a loop which cancels its tasks leaves it alone."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()

    def work() -> None:
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001 (it is raised where the result is awaited)
            result.set_exception(error)
        else:
            result.set_result(value)

    # Neither the loop nor the interpreter waits for a daemon when it ends.
    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="model", daemon=True).start()
    return asyncio.wrap_future(result)


class _Worker(Generic[T]):
    """An event loop in a thread, and the way to cancel what it runs."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._cancelled = False
        self._task: asyncio.Task[T] | None = None

    def run(self) -> T:
        with asyncio.Runner() as runner:
            return runner.run(self._main())

    async def stop(self, running: asyncio.Future[T]) -> None:
        """Cancel, and wait until the code has tidied up, unless it blocks its thread."""
        loop, heard = asyncio.get_running_loop(), asyncio.Event()
        self._cancelled = True
        if self._task is not None and not self._task.done():
            task = self._task

            def cancel() -> None:
                task.cancel()
                with suppress(RuntimeError):  # it came too late: nobody waits any more
                    loop.call_soon_threadsafe(heard.set)

            # Between the look and the call the coroutine may end, and close its loop.
            with suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(cancel)
        hearing = asyncio.ensure_future(heard.wait())
        either: list[asyncio.Future[Any]] = [running, hearing]
        await asyncio.wait(either, timeout=_HEARD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        hearing.cancel()
        if heard.is_set():
            await asyncio.wait([running], timeout=_TIDY_SECONDS)

    async def _main(self) -> T:
        self._task = asyncio.current_task()
        # Set before looked at, as in `stop` the other way round: one of the two sees the other's mark.
        if self._cancelled:
            raise asyncio.CancelledError
        try:
            return await self._function()
        except SystemExit as stop:
            # It would stop the flow's loop before the run can be recorded as failed.
            raise RunnerFailed(
                f"The model's code called sys.exit({stop.code!r}), which would end the whole process. "
                "Raise an exception instead."
            ) from stop
