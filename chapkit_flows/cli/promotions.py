"""The command that makes a model version the champion, through a gate or without one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from chapkit_flows import registry
from chapkit_flows.cli.models import decision_of, find_model_version, tell_change
from chapkit_flows.errors import DataError
from chapkit_flows.evaluation.gates import Gate, read_gate
from chapkit_flows.lineage.registry import holders
from chapkit_flows.promotion import promote_through
from chapkit_flows.resources import open_resources


def promote_model(options: argparse.Namespace) -> int:
    """Make a model version the champion, or give it another alias; 1 if the gate does not let it pass."""
    gate = read_gate_file(options.gate) if options.gate is not None else None
    resources = open_resources()
    version = find_model_version(resources.database, options.version)
    decision = decision_of(options)
    if gate is not None:
        return tell_change(promote_through(resources, version, gate, alias=options.alias, decision=decision), options)
    holder = holders(resources.database, version.model).get(options.alias)
    change = registry.promote(
        resources, version, alias=options.alias, expected=holder.number if holder else None, decision=decision
    )
    return tell_change(change, options)


def read_gate_file(file: Path) -> Gate:
    """The gate that a YAML file describes.

    Raises:
        DataError: The file cannot be read.
        InvalidGate: It is no gate.
        UnknownMetric: It names a metric that there is not.
    """
    return read_gate(_read(file))


def read_rules_file(file: Path) -> list[Any]:
    """The rules of the gate that a YAML file describes, as flows take them.

    Raises:
        DataError: The file cannot be read.
        InvalidGate: It is no gate.
        UnknownMetric: It names a metric that there is not.
    """
    text = _read(file)
    read_gate(text)
    document = yaml.safe_load(text)
    return list(document["rules"] if isinstance(document, dict) else document)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The gate {file} cannot be read: {error}. Check the path.") from error
