"""The periods of a table: months and ISO weeks, in one canonical form."""

from __future__ import annotations

import calendar
import re
from datetime import date, timedelta
from typing import Literal

from chapkit_flows.errors import InvalidPeriod

PeriodType = Literal["weekly", "monthly"]

_MONTH = re.compile(r"([0-9]{4})-?([0-9]{2})")
_WEEK = re.compile(r"([0-9]{4})-?W([0-9]{1,2})")
_RANGE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})/([0-9]{4}-[0-9]{2}-[0-9]{2})")


def canonical_period(text: str) -> str:
    """Write a period in its one form: `2020-01` for a month, `2020-W05` for an ISO week.

    Also read are `202001`, `2020W05`, `2020-W5`, `2020W5`, and first and last day with a slash between them:
    Monday to Sunday for a week, the first to the last of a month for a month.

    Raises:
        InvalidPeriod: `text` is none of these, or names a month or week that does not exist.
    """
    try:
        canonical = _month(text) or _week(text) or _range(text)
    except ValueError as error:
        raise InvalidPeriod(_refusal(text)) from error
    if canonical is None:
        raise InvalidPeriod(_refusal(text))
    return canonical


def period_type_of(canonical: str) -> PeriodType:
    """Whether a period in canonical form is a week or a month."""
    return "weekly" if canonical[5] == "W" else "monthly"


def period_ordinal(canonical: str) -> int:
    """The number of a period: consecutive periods of one type differ by 1.

    Months count from January of year 0, weeks from the one that starts on Monday 0001-01-01.
    """
    if period_type_of(canonical) == "monthly":
        return int(canonical[:4]) * 12 + int(canonical[5:]) - 1
    return (period_start(canonical).toordinal() - 1) // 7


def period_from_ordinal(ordinal: int, period_type: PeriodType) -> str:
    """The canonical form of the period with that number; the inverse of `period_ordinal`."""
    if period_type == "monthly":
        return f"{ordinal // 12:04d}-{ordinal % 12 + 1:02d}"
    return _week_of(date.fromordinal(ordinal * 7 + 1))


def period_start(canonical: str) -> date:
    """The first day of a period in canonical form."""
    if period_type_of(canonical) == "monthly":
        return date(int(canonical[:4]), int(canonical[5:]), 1)
    return date.fromisocalendar(int(canonical[:4]), int(canonical[6:]), 1)


def season_of(canonical: str) -> int:
    """The position of a period in its year: 1 to 12 for a month, 1 to 52 for an ISO week.

    Week 53, which five years in six do not have, counts as week 52.
    """
    if period_type_of(canonical) == "monthly":
        return int(canonical[5:])
    return min(int(canonical[6:]), 52)


def _month(text: str) -> str | None:
    if not (found := _MONTH.fullmatch(text)):
        return None
    first = date(int(found[1]), int(found[2]), 1)
    return f"{first.year:04d}-{first.month:02d}"


def _week(text: str) -> str | None:
    if not (found := _WEEK.fullmatch(text)):
        return None
    return _week_of(date.fromisocalendar(int(found[1]), int(found[2]), 1))


def _range(text: str) -> str | None:
    if not (found := _RANGE.fullmatch(text)):
        return None
    first, last = date.fromisoformat(found[1]), date.fromisoformat(found[2])
    if first.weekday() == 0 and last - first == timedelta(days=6):
        return _week_of(first)
    last_of_month = first.replace(day=calendar.monthrange(first.year, first.month)[1])
    if first.day == 1 and last == last_of_month:
        return _month(found[1][:7])
    return None


def _week_of(monday: date) -> str:
    year, week, _ = monday.isocalendar()
    return f"{year:04d}-W{week:02d}"


def _refusal(text: str) -> str:
    return (
        f"{text!r} is not a period. Write a month as 2020-01 or 202001, an ISO week as 2020-W05 or 2020W05, "
        "or the first and last day of one as 2019-12-30/2020-01-05 (weeks run from Monday to Sunday)."
    )
