"""What a model may return as predictions, checked without a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from chapkit_flows.data.panels import check_panel
from chapkit_flows.errors import InvalidPrediction
from chapkit_flows.flows.predictions import check_predictions

FUTURE = pd.DataFrame({"time_period": ["2020-01", "2020-02"] * 2, "location": ["001", "001", "NA", "NA"]})
GOOD = FUTURE.assign(sample_0=[1.0, 2.0, 3.0, 4.0], sample_1=[5, 6, 7, 8])


def check(returned: Any) -> pd.DataFrame:
    """The stored form of what a model returned for `FUTURE`."""
    panel, _ = check_panel(FUTURE, role="future", required=[], target=None)
    assert panel is not None
    return check_predictions(returned, panel)


@pytest.mark.parametrize(
    "change",
    [
        lambda good: good,
        lambda good: good.iloc[::-1],
        lambda good: good.set_index("location", drop=False),
        lambda good: good.set_index(["location", "time_period"], drop=False),
        lambda good: good.assign(time_period=good["time_period"].str.replace("-", "")),
        lambda good: good[["sample_1", "location", "sample_0", "time_period"]].assign(comment="x"),
        lambda good: good.assign(sample_0=good["sample_0"].astype("str")),
    ],
    ids=["as wanted", "upside down", "indexed", "indexed twice", "other periods", "other columns", "numbers as text"],
)
def test_brings_to_one_form(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """However a model arranges its predictions, they are stored in the order of the future, as numbers."""
    stored = check(change(GOOD))
    pd.testing.assert_frame_equal(
        GOOD.astype({"sample_1": "float64"}), stored.astype({"time_period": "str", "location": "str"})
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda good: pd.concat([good, good[["location"]]], axis=1), "more than one column 'location'"),
        (lambda good: pd.concat([good, good[["sample_0"]]], axis=1), "more than one column 'sample_0'"),
        (lambda good: good.assign(sample_0=True), "sample_0 are of the type bool"),
        (lambda good: good.assign(sample_0=1 + 2j), "sample_0 are of the type complex"),
        (lambda good: good.assign(sample_0=pd.Timestamp("2020-01-01")), "sample_0 are of the type datetime64"),
        (lambda good: good.assign(sample_0="many"), "sample_0 are not finite numbers"),
        (lambda good: good.iloc[1:], "lack 1 rows, such as 001 in 2020-01"),
    ],
)
def test_refuses(change: Callable[[pd.DataFrame], pd.DataFrame], says: str) -> None:
    """What cannot be a forecast is refused, and the message says what is wrong."""
    with pytest.raises(InvalidPrediction, match=says):
        check(change(GOOD))
