"""Folds from what was known at their origins, and how optimistic revised data are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from chapkit_flows.data.periods import season_of
from chapkit_flows.errors import EvaluationError
from chapkit_flows.evaluation.splits import Split
from chapkit_flows.evaluation.vintages import (
    complete_known,
    describe_known,
    describe_plan,
    known_table,
    optimism_of,
    optimism_table,
)

MONTHS = ("2019-03", "2020-01", "2020-02", "2020-03")
SPLIT = Split(number=0, origin="2020-03", train_periods=MONTHS[1:], test_periods=("2020-04", "2020-05"))


def rows(*values: tuple[str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(list(values), columns=["time_period", "location", "disease_cases", "rainfall"])


# Of a the origin is not known yet, and a month before it was left out; b is known in full, c from February on.
KNOWN = rows(
    ("2020-01", "a", 1, 10), ("2020-01", "b", 3, 30), ("2020-02", "b", 4, 40), ("2020-03", "b", 5, 50),
    ("2020-02", "c", 6, 60),
)  # fmt: skip


@pytest.mark.parametrize(("method", "rain"), [("persistence", 10.0), ("climatology", 10.0)])
def test_rows_that_nobody_had_reported(method: str, rain: float) -> None:
    """Up to the origin each place has a row per period, its target missing and its weather estimated from the known."""
    historic, future = complete_known(KNOWN, SPLIT, ["rainfall"], method=method, season_of=season_of)  # type: ignore[arg-type]
    keys = [tuple(row) for row in historic[["location", "time_period"]].itertuples(index=False)]
    expected = [("a", month) for month in MONTHS[1:]] + [("b", month) for month in MONTHS[1:]]
    assert [*expected, ("c", "2020-02"), ("c", "2020-03")] == keys
    empty = historic["disease_cases"].isna()
    assert [("a", "2020-02"), ("a", "2020-03"), ("c", "2020-03")] == [keys[at] for at in np.flatnonzero(empty)]
    assert rain == historic.loc[historic["location"].eq("a") & historic["time_period"].eq("2020-03"), "rainfall"].item()
    assert ["time_period", "location", "rainfall"] == list(future.columns)
    ahead = {(place, month) for place in "abc" for month in SPLIT.test_periods}
    assert ahead == set(future[["location", "time_period"]].itertuples(index=False, name=None))
    pd.testing.assert_frame_equal(
        KNOWN.sort_values(["location", "time_period"]).reset_index(drop=True),
        historic[~empty].reset_index(drop=True),
        check_dtype=False,
    )


def test_what_is_not_known_is_not_used() -> None:
    """Rows after the origin, or before the window, change nothing; the weather that was observed is refused."""
    more = pd.concat([KNOWN, rows(("2020-04", "a", 99, 99), ("2020-05", "d", 99, 99), ("2019-03", "b", 99, 99))])
    for one, other in zip(
        *(
            complete_known(frame, SPLIT, ["rainfall"], method="climatology", season_of=season_of)
            for frame in (KNOWN, more.reset_index(drop=True))
        ),
        strict=True,
    ):
        pd.testing.assert_frame_equal(one, other)
    with pytest.raises(EvaluationError, match="not known at the origin"):
        complete_known(KNOWN, SPLIT, ["rainfall"], method="observed", season_of=season_of)
    with pytest.raises(EvaluationError, match="Nothing was known of 2020-01 to 2020-03"):
        complete_known(KNOWN.iloc[:0], SPLIT, ["rainfall"], method="climatology", season_of=season_of)


def test_how_much_was_known() -> None:
    """Of the origin: who had reported, and which share of today's value; of all values: which share is another now."""
    final = KNOWN.assign(disease_cases=[2, 3, 4, 20, 6])
    known = describe_known(KNOWN, final, SPLIT, target="disease_cases", known_by="2020-04-10")
    assert ("2020-03", "2020-04-10", 3, 1) == (known.origin, known.known_by, known.places, known.reported)
    assert (5 / 20, 2 / 5) == (known.completeness, known.revised)
    (row,) = known_table([known.to_dict()])[1]
    assert ("2020-03", "2020-04-10", "1 of 3 places", "25%", "40.0%") == row


def test_nobody_had_reported() -> None:
    """Without a report of the origin there is no share of it."""
    early = KNOWN[KNOWN["time_period"] < "2020-03"]
    known = describe_known(early, KNOWN, SPLIT, target="disease_cases", known_by="2020-03-31")
    assert (0, None, 0.0) == (known.reported, known.completeness, known.revised)
    assert "" == known_table([known.to_dict()])[1][0][3]


def scores(values: list[float], place: str = "a") -> pd.DataFrame:
    origins = [f"2020-{month:02d}" for month in range(1, len(values) + 1)]
    frame = pd.DataFrame({"origin": origins, "location": place, "time_period": "2021-01", "crps": values})
    return frame.assign(mae=[value * 2 for value in values])


def test_optimism_by_hand() -> None:
    """The optimism is the share by which the score on revised data is smaller, on the rows that both have."""
    vintages = scores([10.0, 20.0, 30.0, np.nan])
    revised = scores([9.0, 14.0, 22.0, 1.0])
    found = optimism_of(vintages, revised)
    assert ["crps", "mae"] == list(found)
    crps = found["crps"]
    assert (20.0, 15.0, -5.0) == (crps.reference_mean, crps.mean, crps.difference)
    assert 0.25 == pytest.approx(crps.skill)
    assert (3, 3, 1) == (crps.n_pairs, crps.n_units, crps.n_unpaired)
    row = {"metric": "crps", "note": "", "low": None, "high": None, "p_value": 0.034, "reference_mean": 20.0}
    (told,) = optimism_table([row | {"mean": 15.0, "difference": -5.0, "skill": 0.25}])[1]
    assert ("CRPS", "20", "15", "-5", "", "+25.0%", "0.034") == told
    with pytest.raises(EvaluationError, match="in common"):
        optimism_of(vintages, scores([1.0], place="b"))


@pytest.mark.parametrize(
    ("text", "delay", "lag"),
    [
        ("on the last day of its origin. The truth is what is known now.", 0, None),
        ("1 day after the last day of its origin. The truth is what was known 60 days after", 1, 60),
    ],
)
def test_plan_in_words(text: str, delay: int, lag: int | None) -> None:
    """People are told what a forecast knew, and what it was scored with."""
    assert text in describe_plan({"delay_days": delay, "truth_lag_days": lag})
