"""Rolling origins cut a panel where they say, and say when they cannot."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapkit_flows.errors import EvaluationError, TooFewPeriods
from chapkit_flows.evaluation.splits import Split, SplitPlan, check_truth, rolling_origins

MONTHS = tuple(f"2020-{month:02d}" for month in range(1, 13))


def test_default_plan_tests_the_last_periods() -> None:
    """Four splits of three months ahead, one month apart, end with the last month of the panel."""
    splits = rolling_origins(MONTHS, SplitPlan())
    assert ["2020-06", "2020-07", "2020-08", "2020-09"] == [split.origin for split in splits]
    assert ("2020-10", "2020-11", "2020-12") == splits[-1].test_periods
    assert MONTHS[:6] == splits[0].train_periods


def test_sliding_window_has_one_length() -> None:
    """A sliding window forgets the oldest periods."""
    plan = SplitPlan(n_periods=2, n_splits=3, stride=2, window="sliding", window_length=4)
    assert [
        (MONTHS[2:6], MONTHS[6:8]),
        (MONTHS[4:8], MONTHS[8:10]),
        (MONTHS[6:10], MONTHS[10:12]),
    ] == [(split.train_periods, split.test_periods) for split in rolling_origins(MONTHS, plan)]


def test_too_few_periods_are_counted() -> None:
    """The error says how many periods there are and how many are needed."""
    with pytest.raises(TooFewPeriods, match=r"has 6 periods, but 4 splits .* stride 1 need 7 \(1 to learn from\)"):
        rolling_origins(MONTHS[:6], SplitPlan())
    assert 1 == len(rolling_origins(MONTHS[:7], SplitPlan())[0].train_periods)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_periods": 0}, "n_periods is 0"),
        ({"n_splits": -1}, "n_splits is -1"),
        ({"stride": 0}, "stride is 0"),
        ({"window": "growing"}, "window is 'growing'"),
        ({"window": "sliding"}, "needs its length"),
        ({"window_length": 0}, "window_length is 0"),
    ],
)
def test_plans_that_cut_nothing(values: dict[str, object], message: str) -> None:
    """A plan that cannot be is refused when it is made."""
    with pytest.raises(EvaluationError, match=message):
        SplitPlan(**values)


@pytest.mark.parametrize("periods", [("2020-02", "2020-01"), ("2020-01", "2020-01")])
def test_periods_out_of_order(periods: tuple[str, ...]) -> None:
    """Periods that are not in order of time would let a model learn from the future."""
    with pytest.raises(EvaluationError, match="in order of time"):
        rolling_origins(periods, SplitPlan(n_periods=1, n_splits=1))


@given(
    count=st.integers(2, 60),
    ahead=st.integers(1, 6),
    number=st.integers(1, 6),
    stride=st.integers(1, 4),
    length=st.none() | st.integers(1, 12),
)
def test_no_split_learns_from_what_it_forecasts(
    count: int, ahead: int, number: int, stride: int, length: int | None
) -> None:
    """Training ends before the test begins, and a plan that is refused needs more than there is."""
    periods = [f"{1990 + month // 12}-{month % 12 + 1:02d}" for month in range(count)]
    window = "sliding" if length else "expanding"
    plan = SplitPlan(n_periods=ahead, n_splits=number, stride=stride, window=window, window_length=length)
    if plan.periods_needed > count:
        with pytest.raises(TooFewPeriods):
            rolling_origins(periods, plan)
        return
    splits = rolling_origins(periods, plan)
    assert number == len(splits)
    assert periods[-1] == splits[-1].test_periods[-1]
    for split in splits:
        known = periods.index(split.origin) + 1
        assert split.train_periods[-1] == split.origin < split.test_periods[0]
        assert tuple(periods[known : known + ahead]) == split.test_periods
        assert (length or known) == len(split.train_periods)


def test_rows_of_a_split() -> None:
    """The rows of a table are divided at the origin."""
    frame = pd.DataFrame({"time_period": MONTHS, "location": "A", "cases": range(12)})
    split = rolling_origins(MONTHS, SplitPlan(n_splits=1))[0]
    assert [9, 10, 11] == split.testing(frame)["cases"].tolist()
    assert list(range(9)) == split.training(frame)["cases"].tolist()


def _truth(**values: list[float | None]) -> pd.DataFrame:
    rows = [
        (period, place, value) for place, known in values.items() for period, value in zip(MONTHS, known, strict=False)
    ]
    return pd.DataFrame(rows, columns=["time_period", "location", "cases"]).astype({"cases": "float64"})


KNOWN = [1.0] * 12
SPLITS: tuple[Split, ...] = rolling_origins(MONTHS, SplitPlan(n_periods=2, n_splits=2))


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (_truth(A=KNOWN), []),
        (_truth(A=[None] * 12), [("error", "target_all_missing")]),
        (_truth(A=KNOWN).drop(columns="cases"), [("error", "target_all_missing")]),
        (_truth(A=KNOWN[:9] + [None] * 3), [("error", "no_truth")]),
        (_truth(A=KNOWN, B=[None] * 12), [("error", "place_without_truth")]),
        (_truth(A=KNOWN, B=KNOWN[:10] + [None] * 2), [("warning", "split_without_truth")]),
        (_truth(A=KNOWN, B=KNOWN[:9] + [None] * 3), [("warning", "split_without_truth")] * 2),
    ],
    ids=["known", "all missing", "no column", "none ahead", "none in a place", "none in one split", "none in two"],
)
def test_missing_truth_is_named(frame: pd.DataFrame, found: list[tuple[str, str]]) -> None:
    """What cannot be scored is said before a model runs, with the place and the split."""
    diagnostics = check_truth(frame, SPLITS, target="cases")
    assert found == [(each.severity, each.code) for each in diagnostics]
    assert all("(B)" in each.message for each in diagnostics if each.code in ("place_without_truth",))
