"""Runs that have ended, without a database."""

from __future__ import annotations

from typing import Any

from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.testing.facts import make_run, make_training


def run_with(**changes: Any) -> RunFact:
    """A training that has ended."""
    reference, outcome = make_run(), make_training()
    values = {name: getattr(outcome, name) for name in outcome.__dataclass_fields__ if name != "readings"}
    told = {name: getattr(reference, name) for name in reference.__dataclass_fields__}
    return RunFact(**(told | values | changes))
