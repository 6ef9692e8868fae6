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
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from chapkit_flows.artifacts.backends import Progress
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
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=console_of(sys.stderr), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.advance(task, count)


class _StepHandler(logging.Handler):
    """Prints the log lines of this package, of the model and of its scripts; Prefect's own are left out."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.pathname.startswith(_PREFECT):
            return
        mark = "·" if record.levelno < logging.WARNING else "!"
        print(f"{mark} {record.getMessage()}", file=sys.stderr, flush=True)
