"""Periods: the forms that are read, and their order."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapkit_flows.data.periods import (
    PeriodType,
    canonical_period,
    period_from_ordinal,
    period_ordinal,
    period_start,
    period_type_of,
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
    ],
)
def test_known_forms_become_one(canonical: str, text: str) -> None:
    """Every accepted spelling of a period has the same canonical form."""
    assert canonical == canonical_period(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2020",
        "2020-13",
        "2020-00",
        "0000-01",
        "202013",
        "2020-1",
        "2020-W60",
        "2020-W00",
        "2021-W53",
        "2020-01-15",
        "20200115",
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
    ],
)
def test_consecutive_periods_differ_by_one(period_type: PeriodType, first: str, second: str) -> None:
    """The ordinal grows by one from period to period, over the end of a year too."""
    assert period_ordinal(first) + 1 == period_ordinal(second)
    assert period_type == period_type_of(first) == period_type_of(second)


@pytest.mark.parametrize(
    ("day", "canonical"),
    [(date(2020, 3, 1), "2020-03"), (date(2019, 12, 30), "2020-W01"), (date(2020, 12, 28), "2020-W53")],
)
def test_period_start(day: date, canonical: str) -> None:
    """A month starts on its first day, an ISO week on its Monday."""
    assert day == period_start(canonical)


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


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text fails otherwise than by InvalidPeriod, and what is accepted is stable."""
    try:
        canonical = canonical_period(text)
    except InvalidPeriod:
        return
    assert canonical == canonical_period(canonical)
