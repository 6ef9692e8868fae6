"""Covariates of the periods ahead are known when the forecast is made."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chapkit_flows.errors import EvaluationError
from chapkit_flows.evaluation.covariates import future_covariates


def _month(period: str) -> int:
    return int(period[5:])


def _panel(first: int, years: int, places: tuple[str, ...] = ("A", "B")) -> pd.DataFrame:
    rows = [
        (f"{year}-{month:02d}", place, 100.0 * at + month + (year - 2000) / 10, 5.0)
        for at, place in enumerate(places)
        for year in range(first, first + years)
        for month in range(1, 13)
    ]
    return pd.DataFrame(rows, columns=["time_period", "location", "rain", "cases"])


AHEAD = pd.DataFrame({"time_period": ["2002-01", "2002-02"] * 2, "location": ["B", "B", "A", "A"]})


def test_climatology_is_the_mean_of_place_and_season() -> None:
    """January of a place is the mean of its Januaries; the rows keep their order."""
    filled = future_covariates(_panel(2000, 2), AHEAD, ["rain"], season_of=_month)
    assert ["time_period", "location", "rain"] == filled.columns.tolist()
    assert AHEAD["location"].tolist() == filled["location"].tolist()
    np.testing.assert_allclose([101.05, 102.05, 1.05, 2.05], filled["rain"])


def test_persistence_is_the_last_known_value() -> None:
    """A missing last month is not carried forward; the month before is."""
    historic = _panel(2000, 2)
    historic.loc[historic["time_period"].eq("2001-12") & historic["location"].eq("A"), "rain"] = np.nan
    filled = future_covariates(historic, AHEAD, ["rain"], method="persistence", season_of=_month)
    np.testing.assert_allclose([112.1, 112.1, 11.1, 11.1], filled["rain"])


def test_observed_is_what_came() -> None:
    """The observed covariates pass, the target does not."""
    ahead = _panel(2002, 1)
    filled = future_covariates(_panel(2000, 2), ahead, ["rain"], method="observed", season_of=_month)
    assert ahead["rain"].tolist() == filled["rain"].tolist()
    assert "cases" not in filled.columns


@settings(max_examples=20, deadline=None)
@given(method=st.sampled_from(["climatology", "persistence"]), value=st.floats(allow_nan=True, allow_infinity=True))
def test_never_looks_ahead(method: str, value: float) -> None:
    """Whatever stands in the rows ahead, the covariates are the same."""
    ahead = _panel(2002, 1)
    plain = future_covariates(_panel(2000, 2), ahead, ["rain"], method=method, season_of=_month)
    other = future_covariates(
        _panel(2000, 2), ahead.assign(rain=value, cases=value), ["rain"], method=method, season_of=_month
    )
    pd.testing.assert_frame_equal(plain, other)


@pytest.mark.parametrize(
    ("place", "period", "expected"),
    [("A", "2000-08", 2.0), ("C", "2001-01", 51.0), ("C", "2001-08", 52.0)],
    ids=["unseen season", "unseen place", "unseen place and season"],
)
def test_what_is_unseen_gets_a_wider_mean(place: str, period: str, expected: float) -> None:
    """A season without past has the mean of its place; a place without past, the mean of the others."""
    historic = _panel(2000, 1)
    historic = historic[historic["time_period"] <= "2000-03"]
    ahead = pd.DataFrame({"time_period": [period], "location": [place]})
    assert [expected] == future_covariates(historic, ahead, ["rain"], season_of=_month)["rain"].tolist()


def test_column_without_a_value_stays_missing() -> None:
    """Nothing is made up for a covariate that was never measured."""
    historic = _panel(2000, 2).assign(rain=np.nan)
    for method in ("climatology", "persistence"):
        assert future_covariates(historic, AHEAD, ["rain"], method=method, season_of=_month)["rain"].isna().all()


def test_unknown_method() -> None:
    """A method that is none is named, with those that are."""
    with pytest.raises(EvaluationError, match="'forecast'; write one of observed, climatology, persistence"):
        future_covariates(_panel(2000, 2), AHEAD, ["rain"], method="forecast", season_of=_month)
