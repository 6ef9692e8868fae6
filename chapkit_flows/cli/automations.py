"""The command that brings automations to the Prefect server."""

from __future__ import annotations

import argparse

from chapkit_flows.cli.output import print_json, print_line, print_table
from chapkit_flows.cli.server import run_here
from chapkit_flows.flows.automations import apply_automations, read_automations


def apply(options: argparse.Namespace) -> int:
    """Create or update the automations; write only what differs."""
    documents = read_automations(options.path)
    applied = run_here(apply_automations(documents), options)
    changed = sum(item.change != "unchanged" for item in applied)
    if options.json:
        rows = [{"automation": item.name, "file": str(item.file), "change": item.change} for item in applied]
        print_json({"changed": changed, "automations": rows})
        return 0
    print_table(("automation", "change", "file"), [(item.name, item.change, item.file) for item in applied])
    print_line(f"\n{changed} changed." if changed else "\nNothing to change.")
    return 0
