"""What is shown on stderr while something goes on: the steps of a run, and how far a large transfer is."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import prefect
from prefect.logging.configuration import setup_logging
from rich.progress import (
    BarColumn,
    DownloadColumn,
    FileSizeColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from chapkit_flows.artifacts.backends import Progress
from chapkit_flows.artifacts.watching import watched_by
from chapkit_flows.cli.output import console_of

LARGE = 64 * 1000**2
"""From this many bytes on, a command shows how far it is."""

_PREFECT = str(Path(prefect.__file__).parent)
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


@contextmanager
def follow_run(options: argparse.Namespace) -> Iterator[None]:
    """Show on stderr what the steps of a run log, and not what Prefect itself does."""
    if not logging.getLogger(_RUN_LOGGERS[0]).handlers:
        setup_logging()
    loggers = [] if options.verbose else [logging.getLogger(name) for name in _RUN_LOGGERS]
    handler = _StepHandler()
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextmanager
def show_transfer(size: int, options: argparse.Namespace) -> Iterator[Progress | None]:
    """Bars on stderr while something large is moved; None, and no bars, where nobody watches."""
    if options.json or size < LARGE or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=console_of(sys.stderr), transient=True) as bars:
        tasks: dict[str, TaskID] = {}
        lock = threading.Lock()

        def tell(what: str, count: int) -> None:
            with lock:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=size)
            bars.advance(tasks[what], count)

        yield tell


@contextmanager
def show_count(what: str, total: int | None, options: argparse.Namespace) -> Iterator[Callable[[int], None]]:
    """How many things are done, on stderr; nothing where nobody watches. Gives what to tell of each more."""
    if options.json or not sys.stderr.isatty():
        yield lambda count: None
        return
    count = TextColumn("{task.completed:.0f}") if total is None else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count)
    with Bars(*columns, console=console_of(sys.stderr), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.advance(task, count)


@contextmanager
def show_uploads(options: argparse.Namespace) -> Iterator[None]:
    """Show on stderr how much of something large is stored already; nothing where nobody watches."""
    if options.json or not sys.stderr.isatty():
        yield
        return
    with watched_by(_Uploads().watch):
        yield


class _Uploads:
    """Bars that come when the transfers of one moment have had LARGE bytes, and go when the last of them ends.

    How much there will be is not known: a flow stores what its model has made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._counts: dict[str, int] = {}
        self._tasks: dict[str, TaskID] = {}
        self._bars: Bars | None = None

    @contextmanager
    def watch(self) -> Iterator[Progress]:
        with self._lock:
            self._open += 1
        try:
            yield self._tell
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self._end()

    def _tell(self, what: str, count: int) -> None:
        with self._lock:
            self._counts[what] = done = self._counts.get(what, 0) + count
            if done < LARGE:
                return
            if self._bars is None:
                columns = (TextColumn("{task.description}"), FileSizeColumn(), TransferSpeedColumn())
                self._bars = Bars(*columns, console=console_of(sys.stderr), transient=True)
                self._bars.start()
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=None)
            self._bars.update(self._tasks[what], completed=done)

    def _end(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._counts.clear()
        self._tasks.clear()


class _StepHandler(logging.Handler):
    """Prints the log lines of this package, of the model and of its scripts; Prefect's own are left out."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.pathname.startswith(_PREFECT):
            return
        mark = "·" if record.levelno < logging.WARNING else "!"
        print(f"{mark} {record.getMessage()}", file=sys.stderr, flush=True)
