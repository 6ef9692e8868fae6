"""How far a model's code says that it has come."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_LINE = re.compile(r"\s*progress:\s*(\d{1,3}(?:\.\d+)?)\s*%\s*(.*)", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Report:
    """What was reported last.

    Attributes:
        fraction: From 0 to 1; None before the first report.
        message: What is being done.
    """

    fraction: float | None = None
    message: str = ""


_watched: ContextVar[Report | None] = ContextVar("watched", default=None)


@contextmanager
def watching(report: Report) -> Iterator[None]:
    """Let reports of this context, and of the threads that inherit it, go to `report`."""
    token = _watched.set(report)
    try:
        yield
    finally:
        _watched.reset(token)


def report_progress(fraction: float, message: str = "") -> None:
    """Say from `on_train` or `on_predict` how far it has come; the run's page in the Prefect UI shows it.

    It costs nothing to call it often: only the newest report is shown, every few seconds. Outside a run it does
    nothing. A script prints a line such as `progress: 40 % epoch 4 of 10` instead.

    Args:
        fraction: From 0 to 1; what lies outside is taken as the nearer of the two.
        message: What is being done, in a few words.

    Raises:
        ValueError: The fraction is not a number.
    """
    if math.isnan(fraction):
        raise ValueError(f"fraction is {fraction!r}; write a number from 0 to 1")
    report = _watched.get()
    if report is not None:
        report.fraction = min(1.0, max(0.0, float(fraction)))
        report.message = message


def report_line(line: str) -> None:
    """Take a line that a script printed as a report, if it is one."""
    found = _LINE.match(line)
    if found:
        report_progress(float(found[1]) / 100, found[2].strip())
