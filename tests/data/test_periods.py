"""Periods: the forms that are read, and their order."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapkit_flows.data.periods import (
    PeriodType,
    canonical_period,
    period_end,
    period_from_ordinal,
    period_ordinal,
    period_start,
    period_type_of,
    place_in_year,
    season_of,
)
from chapkit_flows.errors import InvalidPeriod


@pytest.mark.parametrize(
    ("canonical", "text"),
    [
        ("2020-01", "2020-01"),
        ("2020-01", "202001"),
        ("0007-12", "0007-12"),
        ("2020-01", "2020-01-01/2020-01-31"),
        ("2020-02", "2020-02-01/2020-02-29"),
        ("2020-W05", "2020-W05"),
        ("2020-W05", "2020W05"),
        ("2020-W05", "2020-W5"),
        ("2020-W05", "2020W5"),
        ("2020-W53", "2020W53"),
        ("2020-W01", "2019-12-30/2020-01-05"),
        ("2020-W53", "2020-12-28/2021-01-03"),
        ("2020-01-15", "2020-01-15"),
        ("2020-02-29", "20200229"),
        ("2020-01-15", "2020-01-15/2020-01-15"),
        ("2020", "2020"),
        ("2021", "2021-01-01/2021-12-31"),
    ],
)
def test_known_forms_become_one(canonical: str, text: str) -> None:
    """Every accepted spelling of a period has the same canonical form."""
    assert canonical == canonical_period(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "202",
        "0000",
        "2020-13",
        "2020-00",
        "0000-01",
        "202013",
        "2020-1",
        "2020-W60",
        "2020-W00",
        "2021-W53",
        "2021-02-29",
        "20201301",
        "2020-0115",
        "202001-15",
        "2020-1-15",
        "2020-01-15T00:00:00",
        "2020-01\n",
        " 2020-01",
        "2020-w05",
        "\u0662\u0660\u0662\u0660-\u0660\u0661",
        "2020-01-05/2020-01-11",  # Sunday to Saturday
        "2020-01-06/2020-01-13",
        "2020-02-01/2020-02-28",
        "2020-01-01/2020-02-29",
        "2020-02-30/2020-03-07",
        "2020-01/2020-02",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    """A text that is no period is refused by a message that repeats it and shows the forms."""
    with pytest.raises(InvalidPeriod) as caught:
        canonical_period(text)
    assert str(caught.value).startswith(repr(text))
    assert "2020-01" in str(caught.value)
    assert "2020-W05" in str(caught.value)


@pytest.mark.parametrize(
    ("period_type", "first", "second"),
    [
        ("monthly", "2019-12", "2020-01"),
        ("weekly", "2020-W52", "2020-W53"),
        ("weekly", "2020-W53", "2021-W01"),
        ("weekly", "2021-W52", "2022-W01"),
        ("daily", "2020-02-28", "2020-02-29"),
        ("daily", "2020-12-31", "2021-01-01"),
        ("yearly", "2019", "2020"),
    ],
)
def test_consecutive_periods_differ_by_one(period_type: PeriodType, first: str, second: str) -> None:
    """The ordinal grows by one from period to period, over the end of a year too."""
    assert period_ordinal(first) + 1 == period_ordinal(second)
    assert period_type == period_type_of(first) == period_type_of(second)


@pytest.mark.parametrize(
    ("first", "last", "canonical"),
    [
        (date(2020, 2, 1), date(2020, 2, 29), "2020-02"),
        (date(2019, 12, 30), date(2020, 1, 5), "2020-W01"),
        (date(2020, 12, 28), date(2021, 1, 3), "2020-W53"),
        (date(2020, 2, 29), date(2020, 2, 29), "2020-02-29"),
        (date(2020, 1, 1), date(2020, 12, 31), "2020"),
    ],
)
def test_first_and_last_day(first: date, last: date, canonical: str) -> None:
    """A month starts on its first day, an ISO week on its Monday; each ends on the day before the next one."""
    assert (first, last) == (period_start(canonical), period_end(canonical))
    assert canonical == canonical_period(f"{first}/{last}")


@pytest.mark.parametrize(
    ("season", "place", "canonical"),
    [
        (1, 1, "2021-01-01"),
        (1, 7, "2021-01-07"),
        (2, 8, "2021-01-08"),
        (9, 59, "2021-02-28"),
        (9, 59, "2020-02-29"),
        (9, 60, "2020-03-01"),
        (9, 60, "2021-03-01"),
        (52, 365, "2020-12-31"),
        (52, 365, "2021-12-31"),
        (1, 1, "2021"),
        (12, 12, "2021-12"),
        (52, 52, "2020-W53"),
    ],
)
def test_seasons(season: int, place: int, canonical: str) -> None:
    """Days are in the season of their week, which a leap year does not move; seven of them are one season."""
    assert (season, place) == (season_of(canonical), place_in_year(canonical))


@given(st.dates(date(1, 1, 1), date(9999, 12, 26)))
def test_the_week_of_any_day_survives(day: date) -> None:
    """A week comes back unchanged from its ordinal, from its canonical form, and from its range of days."""
    year, week, weekday = day.isocalendar()
    canonical = f"{year:04d}-W{week:02d}"
    monday, sunday = day.toordinal() - weekday + 1, day.toordinal() - weekday + 7
    days = f"{date.fromordinal(monday).isoformat()}/{date.fromordinal(sunday).isoformat()}"
    assert canonical == canonical_period(canonical) == canonical_period(days)
    assert canonical == period_from_ordinal(period_ordinal(canonical), "weekly")
    assert monday == period_start(canonical).toordinal()


@given(st.dates())
def test_the_month_of_any_day_survives(day: date) -> None:
    """A month comes back unchanged from its ordinal and from its short form."""
    canonical = f"{day.year:04d}-{day.month:02d}"
    assert canonical == canonical_period(canonical) == canonical_period(canonical.replace("-", ""))
    assert canonical == period_from_ordinal(period_ordinal(canonical), "monthly")


@given(st.dates())
def test_any_day_survives(day: date) -> None:
    """A day and its year come back unchanged from their ordinals and from their short forms."""
    canonical, year = day.isoformat(), f"{day.year:04d}"
    assert canonical == canonical_period(canonical) == canonical_period(canonical.replace("-", ""))
    assert canonical == period_from_ordinal(period_ordinal(canonical), "daily")
    assert year == canonical_period(year) == period_from_ordinal(period_ordinal(year), "yearly")


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text fails otherwise than by InvalidPeriod, and what is accepted is stable."""
    try:
        canonical = canonical_period(text)
    except InvalidPeriod:
        return
    assert canonical == canonical_period(canonical)
