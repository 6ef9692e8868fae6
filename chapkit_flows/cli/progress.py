"""What is shown of a run while it runs, and what is known of it when it fails."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prefect
from prefect.logging.configuration import setup_logging

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


class _StepHandler(logging.Handler):
    """Prints the log lines of this package, of the model and of its scripts; Prefect's own are left out."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.pathname.startswith(_PREFECT):
            return
        mark = "·" if record.levelno < logging.WARNING else "!"
        print(f"{mark} {record.getMessage()}", file=sys.stderr, flush=True)
