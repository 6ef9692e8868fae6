"""Run a model's code beside the event loop of the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from chapkit_flows.errors import RunnerFailed

T = TypeVar("T")


async def run_in_worker(function: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine function in a thread, with an event loop of its own.

    The flow's loop stays free for heartbeats and cancellation, even if the model blocks. Cancelling the
    caller cancels the coroutine in the thread, and waits until it has tidied up. Context variables (such as
    Prefect's run) are passed on.

    Raises:
        RunnerFailed: The function called `sys.exit`.
    """
    worker = _Worker(function)
    running = asyncio.ensure_future(asyncio.to_thread(worker.run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        worker.cancel()
        await asyncio.wait([running])
        raise


class _Worker(Generic[T]):
    """An event loop in a thread, and the way to cancel what it runs."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._cancelled = False
        self._task: asyncio.Task[T] | None = None

    def run(self) -> T:
        with asyncio.Runner() as runner:
            return runner.run(self._main())

    def cancel(self) -> None:
        self._cancelled = True
        if self._task is not None and not self._task.done():
            # Between the look and the call the coroutine may end, and close its loop.
            with suppress(RuntimeError):
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    async def _main(self) -> T:
        self._task = asyncio.current_task()
        # Set before looked at, as in `cancel` the other way round: one of the two sees the other's mark.
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
