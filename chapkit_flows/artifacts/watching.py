"""Who watches bytes on their way into a store: set by whoever has a screen, found wherever they are moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from chapkit_flows.artifacts.backends import Progress

Watch: TypeAlias = Callable[[], AbstractContextManager[Progress]]
"""Begins to watch one transfer, which may be part of a larger one that is watched already."""


@contextmanager
def _unwatched() -> Iterator[Progress]:
    yield lambda what, count: None


_WATCH: ContextVar[Watch] = ContextVar("chapkit_flows_watch", default=_unwatched)


def watch() -> AbstractContextManager[Progress]:
    """Within it, what is stored is one transfer; gives what to tell of its bytes."""
    return _WATCH.get()()


@contextmanager
def watched_by(watcher: Watch) -> Iterator[None]:
    """Within it, and in the tasks and threads that begin there, transfers are watched."""
    before = _WATCH.set(watcher)
    try:
        yield
    finally:
        _WATCH.reset(before)


def watched_pool(threads: int) -> ThreadPoolExecutor:
    """Threads that are watched as the one that makes them is."""
    return ThreadPoolExecutor(threads, initializer=_WATCH.set, initargs=(_WATCH.get(),))
