"""What changed from one table of place and period to another, in short."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

_KEYS = ["time_period", "location"]
_SHOWN = 3
_LATER = "\0"  # no column of a table ends so


def describe_changes(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """What differs between two tables, a line each: periods, places, columns, then the values of each column.

    Args:
        before: `time_period`, `location` and other columns.
        after: The same.
    """
    lines = [
        *_members("period", *(sorted(frame["time_period"].astype(str).unique()) for frame in (before, after))),
        *_members("place", *(sorted(frame["location"].astype(str).unique()) for frame in (before, after))),
        *_members("column", list(map(str, before.columns)), list(map(str, after.columns))),
    ]
    old, new = (frame.drop_duplicates(_KEYS) for frame in (before, after))
    both = old.merge(new, on=_KEYS, suffixes=("", _LATER))
    if rows := len(after) - len(before):
        lines.append(f"{len(before)} → {len(after)} rows ({rows:+d})")
    for name in (name for name in before.columns if name in after.columns and name not in _KEYS):
        lines += _values(both, str(name))
    return lines or ["the same values, written in another way (order, number format, file format)"]


def _members(what: str, before: Sequence[str], after: Sequence[str]) -> list[str]:
    added = [one for one in after if one not in set(before)]
    removed = [one for one in before if one not in set(after)]
    return [
        f"{len(found)} {what}{'s' if len(found) > 1 else ''} {verb}: {_short(found, is_range=what == 'period')}"
        for found, verb in ((added, "added"), (removed, "removed"))
        if found
    ]


def _short(names: Sequence[str], *, is_range: bool) -> str:
    if is_range and len(names) > 1:
        return f"{names[0]} to {names[-1]}"
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


def _values(both: pd.DataFrame, name: str) -> list[str]:
    """How many values of a column changed where both tables have the row, and the first of them."""
    old, new = both[name], both[name + _LATER]
    numbers = [pd.to_numeric(column, errors="coerce") for column in (old, new)]
    equal = (numbers[0] == numbers[1]) | (old.isna() & new.isna()) | (old.astype(str) == new.astype(str))
    changed = both[~equal]
    if changed.empty:
        return []
    row = changed.iloc[0]
    example = f"{row['location']} {row['time_period']}: {_cell(row[name])} → {_cell(row[name + _LATER])}"
    return [f"{name}: {len(changed)} of {len(both)} values changed, such as {example}"]


def _cell(value: object) -> str:
    return "missing" if value is None or value != value else str(value)
