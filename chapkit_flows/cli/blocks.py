"""The command that brings YAML configs to the Prefect server."""

from __future__ import annotations

import argparse

from chapkit_flows.cli.output import print_json, print_line, print_table
from chapkit_flows.cli.runs import find_model, run_here
from chapkit_flows.configs.documents import apply_documents, read_documents


def apply(options: argparse.Namespace) -> int:
    """Register the config types and save the configs; write only what differs."""
    documents = read_documents(options.path)
    applied = run_here(apply_documents(documents, lambda reference: find_model(reference).config), options)
    changed = sum(item.change != "unchanged" for item in applied)
    if options.json:
        rows = [{"block": item.slug, "file": str(item.file), "change": item.change} for item in applied]
        print_json({"changed": changed, "blocks": rows})
        return 0
    print_table(("block", "change", "file"), [(item.slug, item.change, item.file) for item in applied])
    print_line(f"\n{changed} changed." if changed else "\nNothing to change.")
    return 0
