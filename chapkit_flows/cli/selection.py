"""What a command is about: ids, or all that a filter is true of; what it would do, and whether it may."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from chapkit_flows.cli.output import describe_artifact, print_json, print_line, print_table, size_text
from chapkit_flows.cli.progress import show_count
from chapkit_flows.errors import DataError, UpkeepError
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_artifact, get_run
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.upkeep.bulk import SHOWN, Step, Survey, find_artifacts, find_runs

T = TypeVar("T", ArtifactRef, RunFact)

ASK_ABOVE = 20
"""So many artifacts a list shows at once; who deletes more of them over a filter is asked."""


def has_filter(options: argparse.Namespace, ids: Sequence[str]) -> bool:
    """Whether a command is about all that a filter is true of, and not about ids.

    Raises:
        DataError: It is about neither, or both.
    """
    if ids and options.where is not None:
        raise DataError(f"There is the id {ids[0]} and --where as well. Name ids or a filter, not both.")
    if not ids and options.where is None:
        raise DataError("What is it about? Name an id, or all that a filter is true of with --where EXPR.")
    return options.where is not None


def chosen_artifacts(
    database: Database,
    options: argparse.Namespace,
    ids: Sequence[str],
    *,
    trash: bool = False,
    newest: str | None = None,
) -> Iterator[list[ArtifactRef]]:
    """The artifacts that a command is about, in batches."""
    if has_filter(options, ids):
        return find_artifacts(database, options.where, trash=trash, newest=newest)
    return iter([[get_artifact(database, one) for one in dict.fromkeys(ids)]])


def chosen_runs(database: Database, options: argparse.Namespace, ids: Sequence[str]) -> Iterator[list[RunFact]]:
    """The runs that a command is about, in batches."""
    if has_filter(options, ids):
        return find_runs(database, options.where)
    return iter([[get_run(database, one) for one in dict.fromkeys(ids)]])


def confirm(found: Survey, options: argparse.Namespace, doing: str) -> None:
    """Ask on a terminal before much is done; elsewhere `--yes` has to say so.

    Raises:
        UpkeepError: The answer is no, or nobody can be asked.
    """
    if options.yes or found.count <= ASK_ABOVE:
        return
    amount = f"{found.count} artifacts, {size_text(found.bytes)},"
    if options.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UpkeepError(f"{amount} would be {doing}. Look at them with --dry-run, then confirm with --yes.")
    print(f"{amount} will be {doing}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UpkeepError("Nothing was changed.")


def show_survey(found: Survey, options: argparse.Namespace, doing: str) -> int:
    """Print what a command would do, and that it did not."""
    if options.json:
        first = [thing.id for thing in found.first]
        print_json(
            {"dry_run": True, "matched": found.matched, "would": found.count, "bytes": found.bytes, "first": first}
        )
        return 0
    if not found.matched:
        return show_nothing(options)
    size = f", {size_text(found.bytes)}" if found.bytes else ""
    print_line(f"{found.count} of {found.matched} would be {doing}{size}{':' if found.count else '.'}")
    if found.first:
        print_table(("id", "kind", "what"), [_describe(thing) for thing in found.first])
    if found.count > len(found.first):
        print_line(f"… and {found.count - len(found.first)} more")
    print_line("Nothing was changed.")
    return 0


def _describe(thing: ArtifactRef | RunFact) -> tuple[str, str, str]:
    if isinstance(thing, ArtifactRef):
        return thing.id, thing.kind, describe_artifact(thing)
    return thing.id, thing.flow, f"{thing.model} · {thing.status}"


def show_nothing(options: argparse.Namespace) -> int:
    """Print that a filter chose nothing."""
    if options.json:
        print_json({"dry_run": False, "matched": 0, "changed": 0})
    else:
        print_line("Nothing matches.")
    return 0


def show_steps(steps: Iterable[Step], options: argparse.Namespace, done: str, *, total: int | None = None) -> int:
    """Let a work be done, batch by batch, and print what came of it; 1 if something could not be done."""
    matched = changed = 0
    gone: list[str] = []
    with show_count(done, total, options) as tell:
        for step in steps:
            matched, changed = matched + step.matched, changed + step.changed
            gone += [artifact.id for artifact in step.gone]
            tell(step.matched)
    if options.json:
        print_json({"dry_run": False, "matched": matched, "changed": changed, "gone": gone})
    elif not matched:
        show_nothing(options)
    else:
        print_line(f"{changed} of {matched} {done}.")
        if gone:
            names = ", ".join(gone[:SHOWN]) + (", …" if len(gone) > SHOWN else "")
            print_line(f"The bytes of {len(gone)} are gone; restore them from a backup first: {names}")
    return 1 if gone else 0
