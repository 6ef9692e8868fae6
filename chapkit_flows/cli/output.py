"""What the commands print: one JSON object, or tables and lines for people."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import prefect
from prefect.logging.configuration import setup_logging
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from chapkit_flows.artifacts.backends import Progress
from chapkit_flows.errors import ChapkitFlowsError, DataError, ValidationFailed
from chapkit_flows.refs import ArtifactRef, Diagnostic

LARGE = 64 * 1000**2
"""From this many bytes on, a command shows how far it is."""

_PREFECT = str(Path(prefect.__file__).parent)
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
_STYLES = {"error": "bold red", "failed": "bold red", "warning": "yellow", "completed": "green", "running": "cyan"}


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout; ids and digests are never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        whole = column in ("id", "code", "digest", "severity", "status", "kind", "flow")
        table.add_column(column, no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(_styled(cell) for cell in row))
    _console(sys.stdout).print(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, _styled(value))
    _console(sys.stdout).print(table)


def print_line(text: str) -> None:
    """Print a line on stdout as it is."""
    print(text)


def print_diagnostics(diagnostics: Sequence[Diagnostic], *, to_stderr: bool = False) -> None:
    """Print findings as blocks: severity, code and field, then the message."""
    console = _console(sys.stderr if to_stderr else sys.stdout)
    for found in diagnostics:
        console.print(found.severity, style=_STYLES.get(found.severity), end=" ")
        console.print(f"{found.code}" + (f" ({found.field})" if found.field else ""), markup=False, highlight=False)
        console.print(f"  {found.message}", markup=False, highlight=False, soft_wrap=True)


def show_error(error: ChapkitFlowsError, options: argparse.Namespace) -> int:
    """Say what is wrong: as JSON on stdout, or in words on stderr."""
    diagnostics = error.diagnostics if isinstance(error, ValidationFailed) else ()
    if options.json:
        content: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
        if diagnostics:
            content["diagnostics"] = [asdict(found) for found in diagnostics]
        print_json({"status": "failed", "error": content})
    elif diagnostics:
        print_diagnostics(diagnostics, to_stderr=True)
    else:
        console = _console(sys.stderr)
        console.print("error", style=_STYLES["error"], end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
    return error.exit_code


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


def say(text: str) -> None:
    """Say on stderr what goes on."""
    _console(sys.stderr).print(text, style="dim", markup=False, highlight=False)


@contextmanager
def show_transfer(size: int, options: argparse.Namespace) -> Iterator[Progress | None]:
    """Bars on stderr while something large is moved; None, and no bars, where nobody watches."""
    if options.json or size < LARGE or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=_console(sys.stderr), transient=True) as bars:
        tasks: dict[str, TaskID] = {}
        lock = threading.Lock()

        def tell(what: str, count: int) -> None:
            with lock:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=size)
            bars.advance(tasks[what], count)

        yield tell


@contextmanager
def whole_path(target: Path) -> Iterator[Path]:
    """A path to write a file or folder to. It becomes `target` once all is written; after an error nothing is left.

    Raises:
        DataError: It cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        yield part
        part.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{target} cannot be written: {reason}. Check rights and space, or choose another.") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def when(moment: datetime | None) -> str:
    """A time in the user's zone, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def how_long(start: datetime, end: datetime | None) -> str:
    """A duration in seconds."""
    return f"{(end - start).total_seconds():.1f} s" if end else ""


def size_text(size: int) -> str:
    """Bytes for people."""
    amount, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def describe_artifact(artifact: ArtifactRef, name: str = "") -> str:
    """An artifact in a few words; `name` is what a run called it, if that is not the name it came with."""
    facts = artifact.metadata
    parts = [str(part) for part in (name or facts.get("name"), facts.get("model")) if part]
    if facts.get("rows"):
        parts.append(f"{facts['rows']} rows, {facts['places']} places, {facts['first']} to {facts['last']}")
    if artifact.status == "failed":
        parts.append(f"failed, exit code {facts.get('exit_code')}")
    return " · ".join(parts)


def _console(stream: Any) -> Console:
    # Output that goes to a file or a pipe is not wrapped to a guess of a screen.
    return Console(file=stream, width=None if stream.isatty() else 200, soft_wrap=False)


def _styled(cell: object) -> str:
    text = "" if cell is None else str(cell)
    style = _STYLES.get(text)
    escaped = text.replace("[", "\\[")
    return f"[{style}]{text}[/{style}]" if style else escaped


class _StepHandler(logging.Handler):
    """Prints the log lines of this package, of the model and of its scripts; Prefect's own are left out."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.pathname.startswith(_PREFECT):
            return
        mark = "·" if record.levelno < logging.WARNING else "!"
        print(f"{mark} {record.getMessage()}", file=sys.stderr, flush=True)
