"""The commands that bring YAML configs to the Prefect server: plan, apply."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from chapkit_flows.cli.annotations import author_of
from chapkit_flows.cli.output import print_diagnostics, print_json, print_line, print_table, say, show_error
from chapkit_flows.cli.runs import find_model
from chapkit_flows.cli.server import run_here
from chapkit_flows.configs.documents import build_configs, check_configs, read_documents
from chapkit_flows.configs.plan import FieldChange, Plan, PlannedDocument, Written
from chapkit_flows.configs.references import MASK
from chapkit_flows.errors import ChapkitFlowsError, ConfigError, ValidationFailed
from chapkit_flows.flows.applying import Author, apply_plan, plan_documents
from chapkit_flows.flows.check import errors_first, has_errors
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.resources import open_resources
from chapkit_flows.settings import ChapkitFlowsSettings

_SHOWN = 80  # characters of a value
_NOTES = {"drifted": "edited on the server since it was applied", "extra": "on the server, in no file"}


def plan(options: argparse.Namespace) -> int:
    """Show what apply would change; with --exit-code 1 if it would change something."""
    made = make_plan(options)
    if options.json:
        print_json(_to_json(made, prune=options.prune))
    else:
        _print_plan(made, prune=options.prune)
    return 1 if options.exit_code and _is_work(made, prune=options.prune) else 0


def apply(options: argparse.Namespace) -> int:
    """Do what the plan says; 1 if something that was edited on the server was left as it is."""
    if options.dry_run:
        return plan(argparse.Namespace(**vars(options), exit_code=False))
    made = make_plan(options)
    overwrite = options.overwrite or _may_overwrite(made, options)
    prune = options.prune and _may_prune(made, options)
    written: list[Written] = []

    async def work() -> None:
        author = Author(name=author_of(options), note=options.note)
        async for one in apply_plan(open_resources(), made, author, overwrite=overwrite, prune=prune):
            written.append(one)

    try:
        run_here(work(), options, follow=False)
    except ChapkitFlowsError as error:
        return _tell_half(made, written, error, options)
    except KeyboardInterrupt:
        if not options.json:
            _print_applied(made, written)
        raise
    left = made.having("drifted") if not overwrite else ()
    if options.json:
        print_json(_applied_json(made, written))
        return 1 if left else 0
    _print_applied(made, written)
    if left:
        say(
            f"{len(left)} left as they are, for they were edited on the server. Bring the edits to the files with "
            f"`chapkit-flows blocks pull {options.path}`, or replace them with --overwrite."
        )
    return 1 if left else 0


def make_plan(options: argparse.Namespace) -> Plan:
    """Read the documents at PATH, check them all, and compare them with the server."""
    configs = build_configs(read_documents(options.path), lambda reference: find_model(reference).config)
    findings = errors_first(check_configs(configs))
    if has_errors(findings):
        raise ValidationFailed(findings)
    print_diagnostics(findings, to_stderr=True)
    database = open_database(ChapkitFlowsSettings().resolved_database_url())
    return run_here(plan_documents(database, configs), options, follow=False)


def confirm(question: str, options: argparse.Namespace) -> bool:
    """Ask on a terminal; elsewhere the answer is no."""
    if options.json or not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _may_overwrite(made: Plan, options: argparse.Namespace) -> bool:
    drifted = made.having("drifted")
    if not drifted or options.json or not sys.stdin.isatty():
        return False
    for item in drifted:
        _print_changes(item)
    return confirm(f"Overwrite these {len(drifted)}, which were edited on the server?", options)


def _may_prune(made: Plan, options: argparse.Namespace) -> bool:
    extra = made.having("extra")
    if not extra or options.yes:
        return bool(extra)
    names = ", ".join(item.slug for item in extra)
    if confirm(f"Delete from the server, as no file has them: {names}?", options):
        return True
    raise ConfigError(f"--prune would delete {names}. Nothing was written. Pass --yes if that is meant.")


def _is_work(made: Plan, *, prune: bool) -> bool:
    actions = ("create", "update", "drifted", *(("extra",) if prune else ()))
    return bool(made.changed_types or made.having(*actions))


def _print_plan(made: Plan, *, prune: bool) -> None:
    for kind in made.types:
        print_line(f"{kind.slug}: type {kind.action}")
    print_line("")
    widths = [
        max((len(text) for text in texts), default=0) for texts in zip(*map(_places, made.documents), strict=True)
    ]
    for item in made.documents:
        _print_changes(item, widths)
    print_line(f"\n{_summary(made, prune=prune)}")


def _places(item: PlannedDocument) -> tuple[str, str]:
    return item.slug, item.place


def _print_changes(item: PlannedDocument, widths: Sequence[int] = (0, 0)) -> None:
    note = _NOTES.get(item.action, "")
    if item.file_changed and item.action == "drifted":
        note = "edited on the server and in the file since it was applied"
    columns = [f"{text:{width}}" for text, width in zip(_places(item), widths, strict=True)]
    print_line("  ".join((f"{item.action:9}", *columns, note and f"({note})")).rstrip())
    for change in item.changes:
        print_line(f"           {describe_change(change)}")


def describe_change(change: FieldChange) -> str:
    """A change in words, such as `n_lags: 3 -> 6`."""
    if change.before == change.after == MASK:
        return f"{change.path}: secret value differs"
    return f"{change.path}: {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    text = value if value == "(absent)" else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _summary(made: Plan, *, prune: bool) -> str:
    counts = [("create", "to create"), ("update", "to update"), ("drifted", "drifted"), ("unchanged", "unchanged")]
    parts = [f"{len(made.having(action))} {words}" for action, words in counts]  # type: ignore[arg-type]
    extra = len(made.having("extra"))
    parts += [f"{extra} to delete" if prune else f"{extra} on the server only"] if extra else []
    return ", ".join(parts) + "." if _is_work(made, prune=prune) or extra else "Nothing to change."


def _to_json(made: Plan, *, prune: bool) -> dict[str, Any]:
    return {
        "changes": _is_work(made, prune=prune),
        "types": [{"type": item.slug, "action": item.action} for item in made.types],
        "blocks": [
            {
                "block": item.slug,
                "action": "delete" if prune and item.action == "extra" else item.action,
                "file": _file(item),
                "line": item.document.written.line if item.document and item.document.written else None,
                "file_changed": item.file_changed,
                "fields": [
                    {"field": change.path, "before": change.before, "after": change.after} for change in item.changes
                ],
            }
            for item in made.documents
        ],
    }


def _rows(made: Plan, written: Sequence[Written]) -> Iterator[tuple[str, str, str | None]]:
    """Each document with what became of it, and its file."""
    done: dict[str, str] = {one.slug: one.change for one in written if one.document is not None}
    for item in made.documents:
        due = item.action in ("create", "update")
        yield item.slug, done.get(item.slug, "not written" if due else item.action), _file(item)


def _file(item: PlannedDocument) -> str | None:
    return str(item.document.file) if item.document else None


def _type_rows(made: Plan, written: Sequence[Written]) -> list[tuple[str, str]]:
    done = {one.slug: one.change for one in written if one.document is None}
    return [
        (item.slug, done.get(item.slug, "unchanged" if item.action == "unchanged" else "not written"))
        for item in made.types
    ]


def _print_applied(made: Plan, written: Sequence[Written]) -> None:
    for slug, change in _type_rows(made, written):
        print_line(f"{slug}: type {change}")
    print_line("")
    print_table(("block", "change", "file"), _rows(made, written))
    print_line(
        f"\n{len(written)} changed." if written else "\nNothing to change." if not made.having("drifted") else ""
    )


def _applied_json(made: Plan, written: Sequence[Written]) -> dict[str, Any]:
    return {
        "changed": len(written),
        "types": [{"type": slug, "change": change} for slug, change in _type_rows(made, written)],
        "blocks": [{"block": slug, "file": file, "change": change} for slug, change, file in _rows(made, written)],
    }


def _tell_half(made: Plan, written: Sequence[Written], error: ChapkitFlowsError, options: argparse.Namespace) -> int:
    """Say what was written before it failed."""
    if options.json:
        failure = {"type": type(error).__name__, "message": str(error)}
        print_json({"status": "failed", **_applied_json(made, written), "error": failure})
        return error.exit_code
    if written:
        _print_applied(made, written)
    say(f"{len(written)} written before it failed; apply again to complete it." if written else "Nothing was written.")
    return show_error(error, options)
