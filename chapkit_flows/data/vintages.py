"""Tables that say when each value was known, and what they held on a past day."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chapkit_flows.data.panels import KNOWN_AT, Role, check_panel
from chapkit_flows.data.periods import period_end, period_start
from chapkit_flows.refs import Diagnostic

Moments = NDArray[np.datetime64]

_KEYS = ["location", "time_period"]
_NAMED = 3  # examples in a message
_DAY = re.compile(r"[0-9]{4}(-?)[0-9]{2}\1[0-9]{2}([T ].+)?")
# Where the zone is known a day may begin so much earlier than in UTC.
_FURTHEST_EAST = np.timedelta64(14, "h")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VintageTable:
    """A table in which a place and period may have several rows: one for each moment at which its values were new.

    A row replaces the earlier rows of its place and period as a whole: an empty cell withdraws a value.

    Attributes:
        frame: In order of `known_at`, without that column; `time_period` in canonical form, numbers as float64.
        known_at: Of each row, in UTC. A day stands for its beginning.
        column: How the table calls it.
    """

    frame: pd.DataFrame
    known_at: Moments
    column: str

    @property
    def first(self) -> date:
        """The day on which the first value was known."""
        return _day_of(self.known_at[0])

    @property
    def last(self) -> date:
        """The day on which the last value was known."""
        return _day_of(self.known_at[-1])

    @property
    def moments(self) -> int:
        """How many distinct moments there are."""
        return len(np.unique(self.known_at))

    def known_by(self, day: date) -> pd.DataFrame:
        """What was known at the end of a day in UTC: a row per place and period, the newest by then."""
        return self._newest(self.known_at < _after(day))

    def latest(self) -> pd.DataFrame:
        """A row per place and period: the newest there is."""
        return self._newest(np.ones(len(self.frame), dtype=np.bool_))

    def settled(self, lag: int) -> pd.DataFrame:
        """Each place and period as it was known `lag` days after the last day of the period."""
        codes, periods = pd.factorize(self.frame["time_period"])
        ends = np.array([_after(period_end(period) + timedelta(days=lag)) for period in periods])
        return self._newest(self.known_at < ends[codes])

    def _newest(self, rows: NDArray[np.bool_]) -> pd.DataFrame:
        kept = self.frame[rows].drop_duplicates(_KEYS, keep="last")
        return kept.sort_values(_KEYS, kind="stable").reset_index(drop=True)


def known_at_column(frame: pd.DataFrame) -> str | None:
    """The column that says when the values of a row were known; None if there is none, the first if there are more."""
    return next((name for name in KNOWN_AT if name in frame.columns), None)


def check_vintages(
    frame: pd.DataFrame, *, role: Role, required: Sequence[str], target: str
) -> tuple[VintageTable | None, tuple[Diagnostic, ...]]:
    """Make a vintage table of a table, and say what is wrong with it.

    Args:
        frame: As `read_table` returns it, with one of the columns `KNOWN_AT`.
        role: What the messages call the table.
        required: Columns the model needs.
        target: The column that the model forecasts.

    Returns:
        The table, None if it cannot be told what was known when; and the findings. Whether the newest rows make a
        panel without gaps is not looked at: that is for `check_panel` to say of `latest`.
    """
    panel, found = check_panel(frame, role=role, required=required, target=target)
    findings = [one for one in found if one.code not in ("duplicate_rows", "gap_in_periods")]
    column = known_at_column(frame)
    assert column is not None
    others = [name for name in KNOWN_AT if name in frame.columns and name != column]
    if others:
        message = f"{role} has the columns {column!r} and {others[0]!r}: which says when values were known? Keep one."
        findings.append(Diagnostic.error("two_known_at", message, f"{role}.{column}"))
    moments, is_zoned, broken = _read_moments(frame[column], role)
    findings += broken
    if moments is None or panel is None or others:
        return None, tuple(findings)
    findings += _check_moments(panel.frame, moments, (role, column, target), is_zoned=is_zoned)
    order = np.argsort(moments, kind="stable")
    rows = panel.frame.drop(columns=column)
    numbers = {str(name): "float64" for name in rows.select_dtypes("number").columns}
    # As float64 whatever comes later, such as the first empty cell of a column: the past keeps its bytes.
    rows = rows.astype(numbers).iloc[order].reset_index(drop=True)
    return VintageTable(frame=rows, known_at=moments[order], column=column), tuple(findings)


def _read_moments(values: pd.Series, role: Role) -> tuple[Moments | None, bool, list[Diagnostic]]:
    """The moments in UTC, whether they came with a zone, and what is wrong with them."""
    field = f"{role}.{values.name}"
    texts = values.map("{:.0f}".format, na_action="ignore") if values.dtype.kind == "f" else values.astype("str")
    missing = np.flatnonzero((texts.isna() | (texts == "")).to_numpy())
    if len(missing):
        message = (
            f"{role} has {len(missing)} rows without {values.name!r}, the first on line {missing[0] + 2}. "
            "Say when each was known."
        )
        return None, False, [Diagnostic.error("missing_known_at", message, field)]
    codes, distinct = pd.factorize(texts)
    read = [_moment(text) for text in distinct]
    invalid = [at for at, moment in enumerate(read) if moment is None][:_NAMED]
    if invalid:
        named = ", ".join(f"{distinct[at]!r} (line {int(np.argmax(codes == at)) + 2})" for at in invalid)
        message = (
            f"{role} has values in {values.name!r} that are no days: {named}. Write 2020-02-14 or 20200214, or with a "
            "time 2020-02-14T08:00Z."
        )
        return None, False, [Diagnostic.error("invalid_known_at", message, field)]
    moments = [moment for moment in read if moment is not None]
    zoned = [moment.tzinfo is not None for moment in moments]
    if any(zoned) and not all(zoned):
        message = (
            f"{role} mixes times with a zone ({distinct[zoned.index(True)]!r}) and without one "
            f"({distinct[zoned.index(False)]!r}) in {values.name!r}: which came first cannot be told. Give all of them "
            "a zone, or none."
        )
        return None, False, [Diagnostic.error("mixed_time_zones", message, field)]
    plain = [(moment.astimezone(UTC) if moment.tzinfo else moment).replace(tzinfo=None) for moment in moments]
    return np.array(plain, dtype="datetime64[us]")[codes], all(zoned), []


def _moment(text: str) -> datetime | None:
    """A day or a time of ISO 8601. A week would be read as its Monday, on which its values are not known: refused."""
    if not _DAY.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def _check_moments(
    frame: pd.DataFrame, moments: Moments, names: tuple[Role, str, str], *, is_zoned: bool
) -> Iterator[Diagnostic]:
    role, column, target = names
    codes, periods = pd.factorize(frame["time_period"])
    starts: Moments = np.array([period_start(period) for period in periods], dtype="datetime64[us]")[codes]
    early = moments < starts - (_FURTHEST_EAST if is_zoned else np.timedelta64(0, "h"))
    if target in frame.columns:
        early &= frame[target].notna().to_numpy()
    if early.any():
        at = int(np.argmax(early))
        message = (
            f"{role} has {int(early.sum())} rows whose {target!r} was known before the period began, such as "
            f"{frame['location'].iloc[at]!r} in {frame['time_period'].iloc[at]}, known at {_day_of(moments[at])} (line "
            f"{at + 2}). Correct {column!r}."
        )
        yield Diagnostic.error("known_before_period", message, f"{role}.{column}")
    repeated = frame[_KEYS].assign(moment=moments).duplicated().to_numpy()
    if repeated.any():
        at = int(np.argmax(repeated))
        message = (
            f"{role} has {int(repeated.sum())} rows too many: more than one for the same place, period and {column!r}, "
            f"such as {frame['location'].iloc[at]!r} in {frame['time_period'].iloc[at]}, known at "
            f"{_day_of(moments[at])} (line {at + 2}). Keep one row for each."
        )
        yield Diagnostic.error("duplicate_vintage", message, f"{role}.{column}")


def _day_of(moment: np.datetime64) -> date:
    day: date = moment.astype("datetime64[D]").item()
    return day


def _after(day: date) -> np.datetime64:
    """The midnight at which a day ends."""
    return np.datetime64(day, "us") + np.timedelta64(1, "D")
