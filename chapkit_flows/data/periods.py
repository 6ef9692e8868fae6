"""The periods of a table: days, ISO weeks, months and years, in one canonical form."""

from __future__ import annotations

import calendar
import re
from datetime import date, timedelta
from typing import Literal

from chapkit_flows.errors import InvalidPeriod

PeriodType = Literal["daily", "weekly", "monthly", "yearly"]

_YEAR = re.compile(r"[0-9]{4}")
_MONTH = re.compile(r"([0-9]{4})-?([0-9]{2})")
_DAY = re.compile(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})")
_WEEK = re.compile(r"([0-9]{4})-?W([0-9]{1,2})")
_TYPES: dict[int, PeriodType] = {4: "yearly", 7: "monthly", 8: "weekly", 10: "daily"}
_RANGE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})/([0-9]{4}-[0-9]{2}-[0-9]{2})")


def canonical_period(text: str) -> str:
    """Write a period in its one form: `2020-01-31` for a day, `2020-W05` for an ISO week, `2020-01`, `2020`.

    Also read are `20200131` (as DHIS2 writes a day), `2020W05`, `2020-W5`, `2020W5`, `202001`, and first and last day
    with a slash between them: the same day twice, Monday to Sunday, the first to the last of a month or of a year.

    Raises:
        InvalidPeriod: `text` is none of these, or names a day, week, month or year that does not exist.
    """
    try:
        canonical = _month(text) or _week(text) or _day(text) or _year(text) or _range(text)
    except ValueError as error:
        raise InvalidPeriod(_refusal(text)) from error
    if canonical is None:
        raise InvalidPeriod(_refusal(text))
    return canonical


def period_type_of(canonical: str) -> PeriodType:
    """Whether a period in canonical form is a day, a week, a month or a year: each form has a length of its own."""
    return _TYPES[len(canonical)]


def period_ordinal(canonical: str) -> int:
    """The number of a period: consecutive periods of one type differ by 1.

    Months count from January of year 0, weeks from the one that starts on Monday 0001-01-01, which is day 1.
    """
    match period_type_of(canonical):
        case "yearly":
            return int(canonical)
        case "monthly":
            return int(canonical[:4]) * 12 + int(canonical[5:]) - 1
        case "weekly":
            return (period_start(canonical).toordinal() - 1) // 7
        case "daily":
            return date.fromisoformat(canonical).toordinal()


def period_from_ordinal(ordinal: int, period_type: PeriodType) -> str:
    """The canonical form of the period with that number; the inverse of `period_ordinal`."""
    match period_type:
        case "yearly":
            return f"{ordinal:04d}"
        case "monthly":
            return f"{ordinal // 12:04d}-{ordinal % 12 + 1:02d}"
        case "weekly":
            return _week_of(date.fromordinal(ordinal * 7 + 1))
        case "daily":
            return date.fromordinal(ordinal).isoformat()


def period_start(canonical: str) -> date:
    """The first day of a period in canonical form."""
    match period_type_of(canonical):
        case "yearly":
            return date(int(canonical), 1, 1)
        case "monthly":
            return date(int(canonical[:4]), int(canonical[5:]), 1)
        case "weekly":
            return date.fromisocalendar(int(canonical[:4]), int(canonical[6:]), 1)
        case "daily":
            return date.fromisoformat(canonical)


def period_end(canonical: str) -> date:
    """The last day of a period in canonical form."""
    first = period_start(canonical)
    match period_type_of(canonical):
        case "yearly":
            return first.replace(month=12, day=31)
        case "monthly":
            return first.replace(day=calendar.monthrange(first.year, first.month)[1])
        case "weekly":
            return first + timedelta(days=6)
        case "daily":
            return first


def season_of(canonical: str) -> int:
    """The season of a period: 1 to 12 for a month, 1 to 52 for an ISO week, 1 for a year.

    Week 53, which five years in six do not have, counts as week 52. A day has the season 1 to 52 of the seven days
    that it is among, counted from 1 January (the last has eight): of a single day of the year a place has one
    value a year, too few for a mean.
    """
    match period_type_of(canonical):
        case "yearly":
            return 1
        case "monthly":
            return int(canonical[5:])
        case "weekly":
            return min(int(canonical[6:]), 52)
        case "daily":
            return min((day_of_year(canonical) - 1) // 7 + 1, 52)


def place_in_year(canonical: str) -> int:
    """Where a period stands in its year, so that one year later another has the same place: of a day 1 to 365.

    29 February has the place of the 28th. Of all other periods it is their season.
    """
    return day_of_year(canonical) if period_type_of(canonical) == "daily" else season_of(canonical)


def day_of_year(canonical: str) -> int:
    """1 to 365 for a day in canonical form, the same in leap years: 29 February counts as the 28th."""
    day = date.fromisoformat(canonical)
    number = day.timetuple().tm_yday
    return number - 1 if calendar.isleap(day.year) and number > 59 else number


def _month(text: str) -> str | None:
    if not (found := _MONTH.fullmatch(text)):
        return None
    first = date(int(found[1]), int(found[2]), 1)
    return f"{first.year:04d}-{first.month:02d}"


def _day(text: str) -> str | None:
    if not (found := _DAY.fullmatch(text)):
        return None
    return date(int(found[1]), int(found[3]), int(found[4])).isoformat()


def _year(text: str) -> str | None:
    return f"{date(int(text), 1, 1).year:04d}" if _YEAR.fullmatch(text) else None


def _week(text: str) -> str | None:
    if not (found := _WEEK.fullmatch(text)):
        return None
    return _week_of(date.fromisocalendar(int(found[1]), int(found[2]), 1))


def _range(text: str) -> str | None:
    if not (found := _RANGE.fullmatch(text)):
        return None
    first, last = date.fromisoformat(found[1]), date.fromisoformat(found[2])
    if first == last:
        return first.isoformat()
    if first.weekday() == 0 and last - first == timedelta(days=6):
        return _week_of(first)
    last_of_month = first.replace(day=calendar.monthrange(first.year, first.month)[1])
    if first.day == 1 and last == last_of_month:
        return _month(found[1][:7])
    if (first.month, first.day, last) == (1, 1, first.replace(month=12, day=31)):
        return found[1][:4]
    return None


def _week_of(monday: date) -> str:
    year, week, _ = monday.isocalendar()
    return f"{year:04d}-W{week:02d}"


def _refusal(text: str) -> str:
    return (
        f"{text!r} is not a period. Write a month as 2020-01 or 202001, an ISO week as 2020-W05 or 2020W05, a day as "
        "2020-01-31 or 20200131, a year as 2020, or first and last day as 2019-12-30/2020-01-05 (weeks run from Monday "
        "to Sunday)."
    )
