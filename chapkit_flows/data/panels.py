"""Panels: tables with one row per place and period, checked before a model sees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chapkit_flows.data.periods import (
    PeriodType,
    canonical_period,
    period_from_ordinal,
    period_ordinal,
    period_type_of,
)
from chapkit_flows.errors import DataError, InvalidPeriod
from chapkit_flows.refs import Diagnostic

Role = Literal["data", "historic", "future"]

KNOWN_AT = ("known_at", "issue", "as_of")
"""The columns that say when the values of a row were known; a table has one of them. `issue` is Delphi Epidata's."""

_NAMED = 3  # examples in a message
_PLURALS: Mapping[PeriodType, str] = {"daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """A table whose places and periods are known.

    Attributes:
        frame: The rows in the order they came; `time_period` in canonical form, `location` as text.
        period_type: Of all its periods.
        locations: Sorted.
        periods: In canonical form, in order of time.
    """

    frame: pd.DataFrame
    period_type: PeriodType
    locations: tuple[str, ...]
    periods: tuple[str, ...]

    def profile(self) -> dict[str, Any]:
        """Facts about the table, as JSON: size, span, columns, share of missing values, ranges of numbers."""
        numbers = self.frame.select_dtypes("number")
        return {
            "rows": len(self.frame),
            "places": len(self.locations),
            "first": self.periods[0] if self.periods else None,
            "last": self.periods[-1] if self.periods else None,
            "period_type": self.period_type,
            "columns": [str(column) for column in self.frame.columns],
            "missing": {str(column): float(share) for column, share in self.frame.isna().mean().items()},
            "ranges": {
                str(column): [float(low), float(high)]
                for column, low, high in zip(numbers.columns, numbers.min(), numbers.max(), strict=True)
                if np.isfinite([low, high]).all()  # JSON has no NaN, which a column without values gives
            },
        }


def check_panel(
    frame: pd.DataFrame, *, role: Role, required: Sequence[str], target: str | None
) -> tuple[Panel | None, tuple[Diagnostic, ...]]:
    """Make a panel of a table, and say what is wrong with it.

    Args:
        frame: As `read_table` returns it; lines are counted from 2, below the header.
        role: What the messages call the table.
        required: Columns the model needs.
        target: The column that the model forecasts; None where it need not be there.

    Returns:
        The panel, None if places and periods cannot be told; and the findings.
    """
    structure = list(_check_structure(frame, role, target))
    if any(found.code != "missing_column" or found.field != f"{role}.{target}" for found in structure):
        return None, (*structure, *_check_values(frame, role, required, target))
    panel, broken = _panel_of(frame, role)
    findings = [*structure, *broken, *_check_values(frame, role, required, target)]
    if panel is not None:
        findings += _check_grid(panel, role)
    return panel, tuple(findings)


def horizon(panel: Panel) -> int:
    """The number of distinct periods of the place that has most of them."""
    places, _, ordinals = _coordinates(panel.frame)
    grid = _distinct(places, ordinals)
    return int(np.bincount(grid[0]).max(initial=0))


def split_last(panel: Panel, n: int) -> tuple[Panel, Panel]:
    """Split off the last `n` periods of each place.

    Raises:
        DataError: `n` is below 1, or no place has more than `n` periods.
    """
    longest = horizon(panel)
    if not 1 <= n < longest:
        raise DataError(
            f"Cannot split the last {n} periods off a table with {longest} periods per place. "
            f"Choose a number from 1 to {longest - 1}."
        )
    places, _, ordinals = _coordinates(panel.frame)
    grid_places, grid_ordinals = _distinct(places, ordinals)
    ends = np.cumsum(np.bincount(grid_places))
    starts = np.concatenate([[0], ends[:-1]])
    first_of_tail = grid_ordinals[np.maximum(ends - n, starts)]
    in_tail = ordinals >= first_of_tail[places]
    return _part_of(panel, ~in_tail), _part_of(panel, in_tail)


def _check_structure(frame: pd.DataFrame, role: Role, target: str | None) -> Iterator[Diagnostic]:
    columns = ["time_period", "location", *([target] if target else [])]
    present = ", ".join(str(column) for column in frame.columns) or "none"
    for column in columns:
        if column not in frame.columns:
            message = f"{role} has no column {column!r}. Its columns are: {present}. Add or rename one."
            yield Diagnostic.error("missing_column", message, f"{role}.{column}")
    if frame.empty:
        message = f"{role} has a header line but no rows. Add one row per place and period."
        yield Diagnostic.error(f"{role}_empty", message, role)


def _panel_of(frame: pd.DataFrame, role: Role) -> tuple[Panel | None, list[Diagnostic]]:
    location = frame["location"].astype("str")
    period = frame["time_period"].astype("str")
    findings = _check_locations(location, role)
    codes, texts = pd.factorize(period.fillna(""))
    canonical, invalid = _canonical_forms(map(str, texts))
    if invalid:
        findings.append(_invalid_periods(codes, invalid, role))
        return None, findings
    types = {period_type_of(text): texts[at] for at, text in reversed(list(enumerate(canonical)))}
    if len(types) > 1:
        named = " and ".join(f"{_PLURALS[kind]} ({types[kind]!r})" for kind in _PLURALS if kind in types)
        message = f"{role} mixes {named} in time_period. Keep one period type in a table."
        findings.append(Diagnostic.error("mixed_period_types", message, f"{role}.time_period"))
    if findings:
        return None, findings
    if canonical != list(texts):
        period = pd.Series(pd.array(canonical, dtype="str").take(codes), index=frame.index)
    panel = Panel(
        frame=frame.assign(time_period=period, location=location),
        period_type=next(iter(types)),
        locations=tuple(sorted(location.unique())),
        periods=tuple(sorted(set(canonical))),
    )
    return panel, findings


def _check_locations(location: pd.Series, role: Role) -> list[Diagnostic]:
    empty = np.flatnonzero((location.isna() | (location == "")).to_numpy())
    if not len(empty):
        return []
    message = f"{role} has {_counted(len(empty), 'row')} without a location, the first on line {empty[0] + 2}. Name it."
    return [Diagnostic.error("missing_location", message, f"{role}.location")]


def _canonical_forms(texts: Iterable[str]) -> tuple[list[str], dict[int, str]]:
    """The canonical form of each text, and the first texts by position that have none."""
    canonical: list[str] = []
    invalid: dict[int, str] = {}
    for at, text in enumerate(texts):
        try:
            canonical.append(canonical_period(text))
        except InvalidPeriod:
            invalid[at] = text
            if len(invalid) == _NAMED:
                break
    return canonical, invalid


def _invalid_periods(codes: NDArray[np.intp], invalid: dict[int, str], role: Role) -> Diagnostic:
    lines = [f"{text!r} (line {int(np.argmax(codes == at)) + 2})" for at, text in invalid.items()]
    message = (
        f"{role} has values in time_period that are not periods: {', '.join(lines)}. Write a month as 2020-01, an ISO "
        "week as 2020-W05, a day as 2020-01-31, a year as 2020, or first and last day as 2019-12-30/2020-01-05 (weeks "
        "run from Monday to Sunday)."
    )
    return Diagnostic.error("invalid_period", message, f"{role}.time_period")


def _check_values(frame: pd.DataFrame, role: Role, required: Sequence[str], target: str | None) -> Iterator[Diagnostic]:
    needed = dict.fromkeys([*required, *([target] if target else [])])
    for column in needed:
        if column not in frame.columns:
            if column != target:
                message = (
                    f"{role} has no column {column!r}, which the model or its config needs. Add it, or take it off "
                    "additional_continuous_covariates if it stands there."
                )
                yield Diagnostic.error("missing_covariate", message, f"{role}.{column}")
        elif not frame.empty:
            yield from _check_needed(frame[column], role, is_target=column == target)
    for column in frame.columns:
        if frame[column].dtype.kind == "f" and np.isinf(frame[column].to_numpy()).any():
            line = int(np.argmax(np.isinf(frame[column].to_numpy()))) + 2
            message = f"{role} column {column!r} has infinite values, the first on line {line}. Correct or empty them."
            yield Diagnostic.error("infinite_values", message, f"{role}.{column}")


def _check_needed(values: pd.Series, role: Role, *, is_target: bool) -> Iterator[Diagnostic]:
    column = values.name
    if values.isna().all():
        code = "target_all_missing" if is_target else "missing_covariate"
        message = f"{role} column {column!r} has no value in any row. Fill it in."
        yield Diagnostic.error(code, message, f"{role}.{column}")
    elif not pd.api.types.is_numeric_dtype(values.dtype):
        numbers = pd.to_numeric(values, errors="coerce")
        at = int(np.argmax((numbers.isna() & values.notna()).to_numpy()))
        message = f"{role} column {column!r} must hold numbers, but line {at + 2} has {str(values.iloc[at])[:80]!r}."
        yield Diagnostic.error("not_numeric", message, f"{role}.{column}")


def _check_grid(panel: Panel, role: Role) -> Iterator[Diagnostic]:
    places, names, ordinals = _coordinates(panel.frame)
    keys, first, span = _sorted_keys(places, ordinals)
    steps = np.diff(keys)
    repeated = np.flatnonzero(steps == 0)
    if len(repeated):
        place, period = divmod(int(keys[repeated[0]]), span)
        text = period_from_ordinal(period + first, panel.period_type)
        message = (
            f"{role} has {_counted(len(repeated), 'row')} too many: more than one for the same place and period, "
            f"such as {names[place]!r} in {text}. Keep one row for each."
        )
        if known_at := next((name for name in KNOWN_AT if name in panel.frame.columns), None):
            message += (
                f" Or does {known_at!r} say when each was known? A backtest with vintages takes them all; for the rest "
                "keep the newest."
            )
        yield Diagnostic.error("duplicate_rows", message, role)
    jumps = np.flatnonzero(steps > 1)
    jumps = jumps[keys[jumps + 1] // span == keys[jumps] // span]
    if len(jumps):
        place, period = divmod(int(keys[jumps[0]]), span)
        text = period_from_ordinal(period + first + 1, panel.period_type)
        gappy = len(np.unique(keys[jumps] // span))
        message = (
            f"{role} has gaps in the periods of {_counted(gappy, 'place')}: {names[place]!r} has no row for {text}. "
            "Add the missing rows, with empty cells where nothing is known."
        )
        if panel.period_type == "daily" and len(jumps) + len(panel.locations) >= len(keys) and steps[jumps].min() >= 7:
            message += " If each row stands for a week or a month, write it as 2020-W05 or 2020-01."
        yield Diagnostic.error("gap_in_periods", message, f"{role}.time_period")


def _coordinates(frame: pd.DataFrame) -> tuple[NDArray[np.int64], Sequence[str], NDArray[np.int64]]:
    """The number of the place of each row, the names of the places, and the ordinal of the period of each row."""
    places, names = pd.factorize(frame["location"])
    codes, periods = pd.factorize(frame["time_period"])
    ordinals = np.array([period_ordinal(text) for text in periods], dtype=np.int64)
    return places.astype(np.int64, copy=False), names.tolist(), ordinals[codes]


def _sorted_keys(places: NDArray[np.int64], ordinals: NDArray[np.int64]) -> tuple[NDArray[np.int64], int, int]:
    """`place * span + ordinal - first` of each row, sorted, and `first` and `span`."""
    first = int(ordinals.min(initial=np.iinfo(np.int64).max)) if len(ordinals) else 0
    span = int(ordinals.max()) - first + 1 if len(ordinals) else 1
    keys = places * span + (ordinals - first)
    if len(keys) and np.any(keys[1:] < keys[:-1]):
        keys.sort()
    return keys, first, span


def _distinct(places: NDArray[np.int64], ordinals: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The distinct pairs of place and ordinal, sorted."""
    keys, first, span = _sorted_keys(places, ordinals)
    keys = keys[np.diff(keys, prepend=-1) > 0]
    return keys // span, keys % span + first


def _part_of(panel: Panel, rows: NDArray[np.bool_]) -> Panel:
    frame = panel.frame[rows].reset_index(drop=True)
    return Panel(
        frame=frame,
        period_type=panel.period_type,
        locations=tuple(sorted(frame["location"].unique())),
        periods=tuple(sorted(frame["time_period"].unique())),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
