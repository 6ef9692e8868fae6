"""The command that brings YAML configs to the Prefect server."""

from __future__ import annotations

import argparse

from chapkit_flows.cli.output import print_json, print_line, print_table
from chapkit_flows.cli.runs import find_model
from chapkit_flows.cli.server import run_here
from chapkit_flows.configs.documents import apply_documents, read_documents


def apply(options: argparse.Namespace) -> int:
    """Register the config types and save the configs; write only what differs."""
    documents = read_documents(options.path)
    applied = run_here(apply_documents(documents, lambda reference: find_model(reference).config), options)
    if options.json:
        types = [{"type": item.slug, "change": item.change} for item in applied.types]
        rows = [{"block": item.slug, "file": str(item.file), "change": item.change} for item in applied.documents]
        print_json({"changed": applied.changed, "types": types, "blocks": rows})
        return 0
    for item in applied.types:
        print_line(f"{item.slug}: type {item.change}")
    print_line("")
    print_table(("block", "change", "file"), [(item.slug, item.change, item.file) for item in applied.documents])
    print_line(f"\n{applied.changed} changed." if applied.changed else "\nNothing to change.")
    return 0
