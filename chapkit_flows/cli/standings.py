"""How the versions of a model stand by their live forecasts, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chapkit_flows.cli.output import print_line, print_table


def print_standing(standing: Mapping[str, Any]) -> None:
    """Print the versions that have scored forecasts, beside the one in use."""
    beside = f"beside {standing['champion']}" if standing["champion"] else f"no {standing['alias']}"
    print_table(
        ("version", "live CRPS", "predictions", "periods", beside, "forecasts of both", "p"),
        [_row(one, standing) for one in standing["versions"]],
    )
    for trial in standing["trials"]:
        print_line(f"\n{trial['candidate']['version']} {'passes' if trial['passed'] else 'does not pass'} the gate")
        for found in trial["findings"]:
            print_line(f"  {found['message']}")


def _row(one: Mapping[str, Any], standing: Mapping[str, Any]) -> tuple[object, ...]:
    beside = one["beside"]
    known = (one["version"], f"{one['crps']:.4g}", one["predictions"], f"{one['first']} to {one['last']}")
    if beside is None:
        return (*known, standing["alias"] if one["version"] == standing["champion"] else "", "", "")
    chance = beside["note"] if beside["p_value"] is None else f"{beside['p_value']:.3f}"
    return (*known, skill_text(beside), beside["n_pairs"], chance)


def skill_text(beside: Mapping[str, Any]) -> str:
    """How much better than the version in use: `+5.0%`."""
    return "" if beside["skill"] is None else f"{beside['skill']:+.1%}"


def find_place(standing: Mapping[str, Any] | None, number: int) -> dict[str, Any] | None:
    """How one version stands; None if it has no scored forecast."""
    versions = standing["versions"] if standing is not None else ()
    return next((dict(one) for one in versions if one["number"] == number), None)


def live_text(place: Mapping[str, Any] | None, standing: Mapping[str, Any] | None) -> str:
    """The same in a cell: `12.3 (+5.0% beside rain@1)`."""
    if place is None or standing is None:
        return ""
    beside = f" ({skill_text(place['beside'])} beside {standing['champion']})" if place["beside"] else ""
    return f"{place['crps']:.4g}{beside}"
