"""Panels: what the check finds, and how a panel is split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from chapkit_flows.data.panels import Panel, Role, check_panel, horizon, split_last
from chapkit_flows.data.tables import read_table
from chapkit_flows.errors import DataError
from chapkit_flows.refs import Diagnostic

MONTHS = ["2020-01", "2020-02", "2020-03", "2020-04"]


def table(**columns: Any) -> pd.DataFrame:
    """Two places with four months each; `columns` replace or add columns."""
    frame = pd.DataFrame({"time_period": MONTHS * 2, "location": ["a"] * 4 + ["b"] * 4})
    return frame.assign(disease_cases=range(8), rainfall=np.linspace(0.5, 4.0, 8)).assign(**columns)


def check(frame: pd.DataFrame, role: Role = "data", target: str | None = "disease_cases") -> Any:
    return check_panel(frame, role=role, required=["rainfall"], target=target)


def panel_of(frame: pd.DataFrame) -> Panel:
    panel, findings = check(frame)
    assert () == findings
    assert panel is not None
    return panel


def only(found: tuple[Diagnostic, ...]) -> Diagnostic:
    assert 1 == len(found), found
    return found[0]


def test_a_good_table_becomes_a_panel() -> None:
    """Places are sorted, periods canonical and in order of time; rows keep their order."""
    frame = table(location=["b"] * 4 + ["001"] * 4, time_period=["202004", "202002", "202003", "202001"] * 2)
    panel = panel_of(frame)
    assert ("001", "b") == panel.locations
    assert tuple(MONTHS) == panel.periods
    assert "monthly" == panel.period_type
    assert ["2020-04", "2020-02", "2020-03", "2020-01"] * 2 == panel.frame["time_period"].tolist()
    pd.testing.assert_series_equal(frame["rainfall"], panel.frame["rainfall"])
    assert "202004" == frame["time_period"].iloc[0]


def test_profile_is_json() -> None:
    """The profile counts rows, places and missing values, and survives JSON."""
    profile = panel_of(table(note=["x", None] * 4)).profile()
    expected = {"rows": 8, "places": 2, "first": "2020-01", "last": "2020-04", "period_type": "monthly"}
    assert expected == {key: profile[key] for key in expected}
    assert 0.5 == profile["missing"]["note"]
    assert list(profile["missing"]) == profile["columns"]
    assert [0.0, 7.0] == profile["ranges"]["disease_cases"]
    assert {"disease_cases", "rainfall"} == set(profile["ranges"])
    assert profile == json.loads(json.dumps(profile, allow_nan=False))


@pytest.mark.parametrize(
    ("code", "field", "words", "frame"),
    [
        ("missing_column", "data.location", "'location'. Its columns are: time", table().drop(columns="location")),
        ("missing_column", "data.time_period", "'time_period'", table().drop(columns="time_period")),
        ("missing_column", "data.disease_cases", "'disease_cases'", table().drop(columns="disease_cases")),
        ("data_empty", "data", "no rows", table().head(0)),
        ("missing_covariate", "data.rainfall", "no column 'rainfall'", table().drop(columns="rainfall")),
        ("missing_covariate", "data.rainfall", "or take it off additional_con", table().drop(columns="rainfall")),
        ("missing_covariate", "data.rainfall", "no value in any row", table(rainfall=np.nan)),
        ("target_all_missing", "data.disease_cases", "no value in any row", table(disease_cases=np.nan)),
        ("not_numeric", "data.rainfall", "line 3 has 'dry'", table(rainfall=["1", "dry"] * 4)),
        ("not_numeric", "data.disease_cases", "line 2 has 'few'", table(disease_cases=["few"] * 8)),
        ("infinite_values", "data.rainfall", "first on line 3", table(rainfall=[1.0, np.inf] * 4)),
        ("infinite_values", "data.other", "first on line 2", table(other=[-np.inf] * 8)),
        (
            "missing_location",
            "data.location",
            "1 row without a location, the first on line 9",
            table(location=[*"aaaabbb", ""]),
        ),
        ("missing_location", "data.location", "8 rows without", table(location=None)),
        (
            "mixed_period_types",
            "data.time_period",
            "weeks ('2020-W05') and months ('2020-01')",
            table(time_period=[*MONTHS, "2020-W05", "2020W06", "2020W07", "2020W08"]),
        ),
        (
            "mixed_period_types",
            "data.time_period",
            "mixes days ('20200131') and months ('2020-01') and years ('2020') in",
            table(time_period=["2020-01", "20200131", "2020", "2020-02"] * 2),
        ),
        (
            "gap_in_periods",
            "data.time_period",
            "'a' has no row for 2020-01-02. Add the missing rows, with empty cells where nothing is known. If each row "
            "stands for a week or a month, write it as 2020-W05 or 2020-01.",
            table(time_period=[f"{month}-01" for month in MONTHS] * 2),
        ),
        (
            "invalid_period",
            "data.time_period",
            "'2020-13' (line 3), '2020-1-05' (line 4), '' (line 5)",
            table(time_period=["2020-01", "2020-13", "2020-1-05", None, "x", "y", "2020-01", "2020-02"]),
        ),
        (
            "duplicate_rows",
            "data",
            "1 row too many",
            table(time_period=[*MONTHS, "2020-01", "2020-02", "2020-03", "202003"]),
        ),
        (
            "duplicate_rows",
            "data",
            "6 rows too many: more than one for the same place and period, such as 'a' in 2020-01",
            table(time_period="2020-01"),
        ),
        ("gap_in_periods", "data.time_period", "1 place: 'a' has no row for 2020-02", table().drop(index=[1, 2])),
        ("gap_in_periods", "data.time_period", "2 places: 'a' has no row for 2020-03", table().drop(index=[2, 5])),
    ],
)
def test_findings(code: str, field: str, words: str, frame: pd.DataFrame) -> None:
    """Each defect alone gives one error that names the column, the place or the line."""
    _, findings = check(frame)
    found = only(findings)
    assert ("error", code, field) == (found.severity, found.code, found.field)
    assert words in found.message


@pytest.mark.parametrize("role", ["data", "historic", "future"])
def test_messages_name_the_role(role: Role) -> None:
    """The role stands in code, message and field of what is found."""
    found = only(check(table().head(0), role=role, target=None)[1])
    assert (f"{role}_empty", role) == (found.code, found.field)
    assert found.message.startswith(role)


def test_the_future_needs_no_target() -> None:
    """Without a target its column may be absent, and may be empty."""
    assert () == check(table().drop(columns="disease_cases"), role="future", target=None)[1]
    assert () == check(table(disease_cases=np.nan), role="future", target=None)[1]


def test_all_defects_are_found_at_once() -> None:
    """One check names every independent defect, so that a user corrects all of them together."""
    frame = table(rainfall="wet", disease_cases=np.nan, other=np.inf).drop(index=1)
    frame = pd.concat([frame, frame.tail(1)])
    codes = {"not_numeric", "target_all_missing", "infinite_values", "duplicate_rows", "gap_in_periods"}
    assert codes == {found.code for found in check(frame)[1]}


def test_some_missing_values_are_no_finding() -> None:
    """Cells may be empty in a column that has values."""
    assert () == check(table(rainfall=[np.nan] * 7 + [1.0], disease_cases=[np.nan] * 7 + [1.0]))[1]


def test_places_may_have_different_spans() -> None:
    """A place that starts later or ends earlier than others has no gap."""
    assert () == check(table().drop(index=[0, 7]))[1]


def test_a_gap_over_the_end_of_a_year_of_53_weeks() -> None:
    """The week 53 of a long year is missed."""
    frame = table().head(3).assign(time_period=["2020-W52", "2021-W01", "2021-W02"])
    found = only(check(frame)[1])
    assert "'a' has no row for 2020-W53" in found.message


def test_structural_errors_give_no_panel() -> None:
    """Without valid places and periods there is no panel; with other errors there is one."""
    assert check(table(time_period="x"))[0] is None
    assert check(table(location=""))[0] is None
    assert check(table().head(0))[0] is None
    assert check(pd.DataFrame())[0] is None
    assert check(table(rainfall="wet"))[0] is not None


def test_horizon_is_that_of_the_longest_place() -> None:
    """The horizon counts distinct periods of one place."""
    assert 4 == horizon(panel_of(table().drop(index=[0])))
    assert 4 == horizon(panel_of(table(location="a", time_period=MONTHS * 2).head(4)))


def test_split_keeps_the_last_periods_of_each_place() -> None:
    """Each place loses its own last periods; together head and tail have every row."""
    frame = table().drop(index=[7]).sample(frac=1, random_state=3)
    head, tail = split_last(panel_of(frame), 2)
    rows = [tuple(row) for row in tail.frame[["location", "time_period"]].itertuples(index=False)]
    assert {("a", "2020-03"), ("a", "2020-04"), ("b", "2020-02"), ("b", "2020-03")} == set(rows)
    assert ("2020-01", "2020-02") == head.periods
    assert sorted(frame["disease_cases"]) == sorted([*head.frame["disease_cases"], *tail.frame["disease_cases"]])


def test_split_takes_short_places_whole() -> None:
    """A place with fewer periods than are split off is only in the tail."""
    head, tail = split_last(panel_of(table().drop(index=[4, 5, 6])), 2)
    assert (("a",), ("a", "b")) == (head.locations, tail.locations)


@pytest.mark.parametrize("n", [-1, 0, 4, 5])
def test_impossible_splits_are_refused(n: int) -> None:
    """A split must leave something on both sides."""
    with pytest.raises(DataError, match="number from 1 to 3"):
        split_last(panel_of(table()), n)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (("monthly", 3, "2010-01", "2012-12"), "laos_subset/laos_subset.csv"),
        (("monthly", 57, "1994-02", "2010-12"), "vnm_dengue_monthly/vietnam_monthly.csv"),
        (("weekly", 10, "2004-W01", "2022-W44"), "nicaragua_weekly/nicaragua_weekly_data.csv"),
    ],
)
def test_real_tables(facts: tuple[object, ...], name: str, shared: Path) -> None:
    """Real tables are panels without findings, and their last three periods can be split off."""
    with (shared / name).open("rb") as file:
        panel = panel_of(read_table(file, media_type="text/csv"))
    assert facts == (panel.period_type, len(panel.locations), panel.periods[0], panel.periods[-1])
    head, tail = split_last(panel, 3)
    assert panel.periods[-3:] == tail.periods
    assert panel.periods[:-3] == head.periods
    assert 3 * len(panel.locations) == len(tail.frame)
