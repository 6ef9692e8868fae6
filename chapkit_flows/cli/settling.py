"""The command that records how killed runs ended."""

from __future__ import annotations

import argparse
from datetime import timedelta

from chapkit_flows.cli.output import print_json, print_line, print_table, when
from chapkit_flows.cli.server import run_here
from chapkit_flows.flows.settle import settle
from chapkit_flows.lineage.query import running_before
from chapkit_flows.refs import now
from chapkit_flows.resources import open_resources


def settle_runs(options: argparse.Namespace) -> int:
    """Ask the Prefect server about the runs that are recorded as running, and record how the dead ones ended."""
    resources = open_resources()
    if not running_before(resources.database, now()):
        settled = []  # a server need not be started for that
    else:
        limit = timedelta(seconds=options.silent_for) if options.silent_for else None
        settled = run_here(settle(resources, silent_for=limit), options)
    running = running_before(resources.database, now())
    if options.json:
        print_json({"settled": [run.to_dict() for run in settled], "running": [run.id for run in running]})
        return 0
    if settled:
        rows = [(run.id, run.flow, run.model, run.status, when(run.started_at), run.error) for run in settled]
        print_table(("id", "flow", "model", "status", "started", "why"), rows)
    print_line(f"{len(settled)} settled, {len(running)} running.")
    return 0
