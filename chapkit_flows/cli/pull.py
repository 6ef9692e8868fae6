"""The command that brings what was edited in Prefect's UI back to the YAML files."""

from __future__ import annotations

import argparse
from typing import Any

from chapkit_flows.cli.annotations import author_of
from chapkit_flows.cli.blocks import describe_change, make_plan
from chapkit_flows.cli.output import print_json, print_line
from chapkit_flows.configs.pull import Pulled
from chapkit_flows.flows.applying import Author, pull_plan
from chapkit_flows.resources import open_resources


def pull(options: argparse.Namespace) -> int:
    """Write what was edited on the server to the files; 1 if something was left as it is."""
    made = make_plan(options)
    author = Author(name=author_of(options))
    done = list(pull_plan(open_resources(), made, options.path, author, overwrite=options.overwrite, new=options.new))
    # What is on the server only, or in the file only, is no failure of a pull.
    left = [item for item in done if item.kept or (item.action == "left" and item.changes)]
    if options.json:
        print_json({"changed": sum(item.action in ("updated", "created") for item in done), "blocks": _to_json(done)})
        return 1 if left else 0
    for item in done:
        print_line("  ".join(str(part) for part in (f"{item.action:9}", item.slug, item.file) if part))
        for change in item.changes if item.action != "left" else ():
            if change.path not in item.kept:
                print_line(f"           {describe_change(change)}")
        if item.note:
            print_line(f"           {item.note}")
    changed = sum(item.action in ("updated", "created") for item in done)
    print_line(f"\n{changed} written." if changed else "\nNothing to write.")
    return 1 if left else 0


def _to_json(done: list[Pulled]) -> list[dict[str, Any]]:
    return [
        {
            "block": item.slug,
            "action": item.action,
            "file": str(item.file) if item.file else None,
            "note": item.note or None,
            "fields": [
                {"field": change.path, "before": change.before, "after": change.after} for change in item.changes
            ],
            "secrets_kept": list(item.kept),
        }
        for item in done
    ]
