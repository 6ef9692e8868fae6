"""What the commands print: one JSON object, or tables and lines for people. It needs no Prefect."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chapkit_flows.errors import ChapkitFlowsError, DataError, InvalidSetting, ValidationFailed
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.json_text import finite
from chapkit_flows.refs import ArtifactRef, Diagnostic

_SETTINGS = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_"
_WIDEST = 10_000
_STYLES = {"error": "bold red", "failed": "bold red", "warning": "yellow", "completed": "green", "running": "cyan"}


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout; ids and digests are never cut."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        whole = column in ("id", "code", "digest", "severity", "status", "kind", "flow")
        table.add_column(column, no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(_styled(cell) for cell in row))
    _print(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(escape(name), _styled(value))
    _print(table)


def _print(table: Table) -> None:
    """Print a table on stdout, without the spaces that Rich puts at the ends of lines."""
    console = console_of(sys.stdout)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def flatten(facts: Mapping[str, Any], depth: int = 1) -> Iterator[tuple[str, object]]:
    """Names and values as `print_facts` takes them; what stands in a value comes below its name, further in."""
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield f"{'  ' * depth}{name}", " "
            yield from flatten(value, depth + 1)
        elif isinstance(value, list) and not any(isinstance(item, Mapping | list) for item in value):
            yield f"{'  ' * depth}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{'  ' * depth}{name}", value


def print_line(text: str) -> None:
    """Print a line on stdout as it is."""
    print(text)


def print_diagnostics(diagnostics: Sequence[Diagnostic], *, to_stderr: bool = False) -> None:
    """Print findings as blocks: severity, code and field, then the message."""
    console = console_of(sys.stderr if to_stderr else sys.stdout)
    for found in diagnostics:
        console.print(found.severity, style=_STYLES.get(found.severity), end=" ")
        console.print(f"{found.code}" + (f" ({found.field})" if found.field else ""), markup=False, highlight=False)
        console.print(f"  {found.message}", markup=False, highlight=False, soft_wrap=True)


def show_error(error: ChapkitFlowsError, options: argparse.Namespace, run: RunFact | None = None) -> int:
    """Say what is wrong, and which run it was: as JSON on stdout, or in words on stderr."""
    diagnostics = error.diagnostics if isinstance(error, ValidationFailed) else ()
    if options.json:
        content: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
        if diagnostics:
            content["diagnostics"] = [asdict(found) for found in diagnostics]
        ids = {"run_id": run.id, "artifact_id": None, "flow_run_id": run.flow_run_id} if run else {}
        print_json({"status": run.status if run else "failed", **ids, "error": content})
    elif diagnostics:
        print_diagnostics(diagnostics, to_stderr=True)
    else:
        console = console_of(sys.stderr)
        console.print("error", style=_STYLES["error"], end=" ")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
    if run is not None and not options.json:
        say(f"Run {run.id} {run.status}; look: chapkit-flows runs show {run.id}")
    return error.exit_code


def refuse_setting(error: ValueError) -> ChapkitFlowsError | None:
    """What to tell of a setting that does not fit its field; None if the error is about something else."""
    if isinstance(error, SettingsError):
        field = re.search(r'field "(\w+)"', str(error))
        variable = f"{_SETTINGS}{field[1].upper()}" if field else "A setting"
        return InvalidSetting(f"{variable} is not readable JSON: {error.__cause__}. Correct or unset it.")
    if not isinstance(error, ValidationError) or not error.title.endswith("Settings"):
        return None
    # Prefect has settings of its own, whose variables the names of the fields alone do not tell.
    prefix = _SETTINGS if error.title == "ChapkitFlowsSettings" else f"Prefect's {error.title}: "
    found = [
        f"{prefix}{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}"
        for item in error.errors(include_url=False)
        if item["type"] != "default_factory_not_called"
    ]
    return InvalidSetting(f"{'; '.join(found)}. Correct or unset it.")


def say(text: str) -> None:
    """Say on stderr what goes on."""
    console_of(sys.stderr).print(text, style="dim", markup=False, highlight=False)


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
    elif not parts and artifact.kind in ("training_workspace", "prediction_workspace"):
        code = f", exit code {facts['exit_code']}" if "exit_code" in facts else ""
        parts.append(f"what the command left{code}")
    return " · ".join(parts)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Rich would leave with 1, which says here that a check found a fault.
        raise BrokenPipeError


def console_of(stream: Any) -> Console:
    """A console on a stream, as wide as its screen."""
    # Output that goes to a file or a pipe is not wrapped to a guess of a screen.
    return _Console(file=stream, width=None if stream.isatty() else _WIDEST, soft_wrap=False)


def _styled(cell: object) -> str:
    text = "" if cell is None else str(cell)
    style = _STYLES.get(text)
    escaped = text.replace("[", "\\[")
    return f"[{style}]{text}[/{style}]" if style else escaped
