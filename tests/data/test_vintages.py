"""Tables that say when values were known: what they held on a past day, and what is wrong with them."""

from __future__ import annotations

import io
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from chapkit_flows.data.panels import check_panel
from chapkit_flows.data.periods import period_end, period_from_ordinal, period_ordinal
from chapkit_flows.data.tables import read_table
from chapkit_flows.data.vintages import VintageTable, check_vintages, known_at_column
from chapkit_flows.refs import Diagnostic

ROWS = [
    ("2020-01", "a", 5, "2020-02-03"),
    ("2020-01", "a", 8, "2020-03-03"),
    ("2020-02", "a", 7, "2020-03-03"),
    ("2020-01", "b", 1, "2020-02-20"),
    ("2020-02", "b", 4, "2020-03-05"),
    ("2020-01", "a", 9, "2020-06-01"),
]


def table(rows: list[tuple[Any, ...]] = ROWS, column: str = "known_at") -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["time_period", "location", "disease_cases", column])
    return frame.assign(rainfall=1.0)


def check(frame: pd.DataFrame) -> tuple[VintageTable | None, tuple[Diagnostic, ...]]:
    return check_vintages(frame, role="data", required=["rainfall"], target="disease_cases")


def vintages_of(frame: pd.DataFrame) -> VintageTable:
    made, findings = check(frame)
    assert () == findings
    assert made is not None
    return made


def cases(frame: pd.DataFrame) -> dict[tuple[str, str], float]:
    return {(row.location, row.time_period): row.disease_cases for row in frame.itertuples()}


@pytest.mark.parametrize(
    ("day", "known"),
    [
        ("2020-02-02", {}),
        ("2020-02-03", {("a", "2020-01"): 5}),
        ("2020-03-02", {("a", "2020-01"): 5, ("b", "2020-01"): 1}),
        ("2020-03-03", {("a", "2020-01"): 8, ("a", "2020-02"): 7, ("b", "2020-01"): 1}),
        ("2020-12-31", {("a", "2020-01"): 9, ("a", "2020-02"): 7, ("b", "2020-01"): 1, ("b", "2020-02"): 4}),
    ],
)
def test_what_was_known_by_a_day(day: str, known: dict[tuple[str, str], float]) -> None:
    """Of each place and period the newest value up to the end of the day; what is known later is not there."""
    made = vintages_of(table())
    assert known == cases(made.known_by(date.fromisoformat(day)))
    assert "known_at" not in made.known_by(date(2020, 12, 31)).columns
    assert (date(2020, 2, 3), date(2020, 6, 1), 5) == (made.first, made.last, made.moments)


def test_the_newest_rows_are_a_panel() -> None:
    """What is known now has a row per place and period."""
    latest = vintages_of(table()).latest()
    panel, findings = check_panel(latest, role="data", required=["rainfall"], target="disease_cases")
    assert () == findings
    assert panel is not None
    assert {("a", "2020-01"): 9, ("a", "2020-02"): 7, ("b", "2020-01"): 1, ("b", "2020-02"): 4} == cases(panel.frame)


def test_settled_values() -> None:
    """With a lag each period has its value of so many days after its own end, and none if there was none by then."""
    made = vintages_of(table())
    assert {("a", "2020-01"): 5, ("a", "2020-02"): 7} == cases(made.settled(4))
    all_of_them = {("a", "2020-01"): 8, ("a", "2020-02"): 7, ("b", "2020-01"): 1, ("b", "2020-02"): 4}
    assert all_of_them == cases(made.settled(33))


def test_an_empty_cell_withdraws_a_value() -> None:
    """A row replaces the earlier one as a whole."""
    made = vintages_of(table([*ROWS, ("2020-02", "b", np.nan, "2020-04-01")]))
    assert 4 == cases(made.known_by(date(2020, 3, 31)))["b", "2020-02"]
    assert np.isnan(cases(made.latest())["b", "2020-02"])


@pytest.mark.parametrize(
    "written",
    [
        ["2020-02-03", "2020-02-04"],
        [20200203, 20200204],
        [20200203.0, 20200204.0],
        ["2020-02-03T23:59:59", "2020-02-04 00:00"],
        ["2020-02-04T06:59:59+07:00", "2020-02-04T00:00Z"],
        ["2020-02-03T23:00:00Z", "2020-02-03T21:00:00-03:00"],
    ],
)
def test_days_and_times(written: list[Any]) -> None:
    """A day, a time, and times of different zones, which are told apart in UTC."""
    made = vintages_of(table([("2020-01", "a", 5, written[0]), ("2020-01", "a", 6, written[1])]))
    assert [5, 6] == [made.known_by(date(2020, 2, day))["disease_cases"].item() for day in (3, 4)]


@pytest.mark.parametrize("column", ["known_at", "issue", "as_of"])
def test_names_of_the_column(column: str) -> None:
    """The column may be called as Delphi Epidata calls it; a table without any is no vintage table."""
    assert column == known_at_column(table(column=column))
    assert column == vintages_of(table(column=column)).column
    assert known_at_column(table().drop(columns="known_at")) is None


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("ns", tz="UTC")])
def test_parquet_types(kind: pa.DataType) -> None:
    """Dates and timestamps of Parquet are read as they are."""
    frame = table()
    arrow = pa.Table.from_pandas(frame.assign(known_at=pd.to_datetime(frame["known_at"])))
    at = arrow.column_names.index("known_at")
    file = io.BytesIO()
    parquet.write_table(arrow.set_column(at, "known_at", arrow["known_at"].cast(kind)), file)
    file.seek(0)
    read = read_table(file, media_type="application/vnd.apache.parquet", numeric=["disease_cases", "rainfall"])
    assert cases(vintages_of(frame).latest()) == cases(vintages_of(read).latest())
    assert date(2020, 2, 3) == vintages_of(read).first


def test_times_before_the_day_in_utc() -> None:
    """In the east a day is over, and reported, while its date has not begun in UTC."""
    frame = table([("2020-02-01", "a", 5, "2020-02-01T06:00+07:00")])
    assert date(2020, 1, 31) == vintages_of(frame).first


@pytest.mark.parametrize(
    ("code", "words", "frame"),
    [
        ("duplicate_vintage", "'a' in 2020-01, known at 2020-02-03 (line 8)", table([*ROWS, ROWS[0]])),
        ("known_before_period", "'a' in 2020-02, known at 2020-01-31 (l", table([("2020-02", "a", 1, "20200131")])),
        ("missing_known_at", "1 rows without 'known_at', the first on line 3", table([ROWS[0], (*ROWS[1][:3], None)])),
        (
            "invalid_known_at",
            "'spring' (line 2), '2020-W06' (line 3)",
            table([(*ROWS[0][:3], "spring"), (*ROWS[1][:3], "2020-W06"), *ROWS[2:]]),
        ),
        ("invalid_known_at", "'202002' (line 2)", table([(*ROWS[0][:3], 202002)])),
        ("invalid_known_at", "'2020-02-30' (line 2)", table([(*ROWS[0][:3], "2020-02-30")])),
        (
            "mixed_time_zones",
            "with a zone ('2020-02-03T08:00Z') and without one ('2020-03-03')",
            table([(*ROWS[0][:3], "2020-02-03T08:00Z"), ROWS[1]]),
        ),
        ("two_known_at", "'known_at' and 'issue'", table().assign(issue="2020-02-03")),
        ("missing_covariate", "no column 'rainfall'", table().drop(columns="rainfall")),
        ("invalid_period", "'winter'", table([("winter", "a", 1, "2020-02-01")])),
    ],
)  # fmt: skip
def test_findings_about_vintages(code: str, words: str, frame: pd.DataFrame) -> None:
    """Each defect alone gives one error that names the row or the column."""
    (found,) = check(frame)[1]
    assert ("error", code) == (found.severity, found.code)
    assert words in found.message


def test_forecasts_of_weather_may_be_early() -> None:
    """A row without a value of the target may be known before its period."""
    assert vintages_of(table([*ROWS, ("2020-09", "a", np.nan, "2020-06-01")])).moments == 5


def test_other_commands_say_what_vintages_are_for() -> None:
    """Where one row is expected for each place and period, the message knows what the others may be."""
    found = check_panel(table(), role="data", required=[], target="disease_cases")[1]
    (duplicate,) = [one for one in found if one.code == "duplicate_rows"]
    assert "does 'known_at' say when each was known? A backtest with vintages takes them all" in duplicate.message


VINTAGE = st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.integers(0, 400))


@settings(deadline=None, max_examples=40)
@given(st.lists(VINTAGE, min_size=1, max_size=60, unique=True), st.integers(0, 600))
def test_nothing_later_is_known(drawn: list[tuple[int, str, int]], day: int) -> None:
    """What was known by a day is the same whatever became known after it, and there is nothing newer by then."""
    start = period_ordinal("2020-01")
    rows = []
    for step, place, lag in drawn:
        period = period_from_ordinal(start + step, "monthly")
        known = period_end(period) + timedelta(days=lag)
        rows.append((period, place, float(known.toordinal()), known.isoformat()))
    until = date(2020, 1, 1) + timedelta(days=day)
    everything = vintages_of(table(rows)).known_by(until)
    assert (everything["disease_cases"] <= until.toordinal()).all()
    poisoned = [row if row[3] <= until.isoformat() else (*row[:2], 1e9, row[3]) for row in rows]
    pd.testing.assert_frame_equal(everything, vintages_of(table(poisoned)).known_by(until))
    before = [row for row in rows if row[3] <= until.isoformat()]
    if before:
        pd.testing.assert_frame_equal(everything, vintages_of(table(before)).latest())
    newest = {}
    for row in sorted(before, key=lambda row: row[3]):
        newest[row[1], row[0]] = row[2]
    assert newest == cases(everything)
