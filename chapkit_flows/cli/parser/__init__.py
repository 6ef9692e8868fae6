"""What the command line takes. It imports nothing that takes time: `--help` shall be there at once."""

from __future__ import annotations

import argparse

from chapkit_flows import __version__
from chapkit_flows.cli.parser.browsing import add_browsing
from chapkit_flows.cli.parser.evaluating import add_evaluating
from chapkit_flows.cli.parser.operations import add_operations
from chapkit_flows.cli.parser.registry import add_registry
from chapkit_flows.cli.parser.running import add_running
from chapkit_flows.cli.parser.upkeep import add_upkeep


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="chapkit-flows",
        description="Train and predict with forecasting models as Prefect flows, with lineage of every forecast.",
        epilog="Exit codes: 0 done, 1 a check found a fault or a difference, 2 wrong input or a run that failed.",
    )
    parser.add_argument("--version", action="version", version=f"chapkit-flows {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_running(commands)
    add_evaluating(commands)
    add_browsing(commands)
    add_registry(commands)
    add_operations(commands)
    add_upkeep(commands)
    return parser
