"""Drift is told from chance, from the season, and from too few values."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from chapkit_flows.errors import EvaluationError
from chapkit_flows.evaluation.drift import DriftLimits, check_drift, measure_drift, stability_index

RNG = np.random.default_rng(4)
PERIODS = [f"{year}-{month:02d}" for year in range(2000, 2020) for month in range(1, 13)]
RAIN = np.array([math.sin(int(period[5:]) / 12 * 2 * math.pi) for period in PERIODS])


def _table(values: np.ndarray, periods: list[str] | None = None) -> pd.DataFrame:
    names = periods or [f"2020-{row % 12 + 1:02d}" for row in range(len(values))]
    return pd.DataFrame({"time_period": names, "location": "A", "rain": values})


def _codes(training: np.ndarray, recent: np.ndarray) -> list[str]:
    return [found.code for found in check_drift(measure_drift(_table(training), _table(recent), ["rain"]))]


def test_index_by_hand() -> None:
    """Of two bins with 10 and 10 values before, 2 and 8 now, the index is that of the shares."""
    before = np.array([1.0] * 5 + [2] * 5 + [3] * 5 + [4] * 5)
    now = np.array([1.0] * 5 + [4] * 5)
    assert 0.0 == pytest.approx(stability_index(before, now)[0])
    skewed = np.array([1.0] * 2 + [4] * 8)
    shares = np.array([2.5, 8.5]) / 11
    by_hand = ((shares - 0.5) * np.log(shares / 0.5)).sum()
    found, by_chance = stability_index(before, skewed)
    assert by_hand == pytest.approx(found)
    assert stats.chi2.ppf(0.95, 1) * (1 / 20 + 1 / 10) == pytest.approx(by_chance)


def test_no_change_is_rarely_beyond_chance() -> None:
    """Of samples of one distribution about one in twenty is above the bound, whatever their size."""
    for size in (50, 400):
        found = [stability_index(RNG.normal(size=2000), RNG.normal(size=size)) for _ in range(400)]
        assert 0.05 == pytest.approx(np.mean([psi > bound for psi, bound in found]), abs=0.035)


@pytest.mark.parametrize(
    ("recent", "codes"),
    [
        (RNG.normal(size=200), []),
        (RNG.normal(0.8, 1, size=200), ["drift_distribution"]),
        (RNG.normal(size=200) * 0.2, ["drift_distribution"]),
        (RNG.normal(size=200) + 300, ["drift_distribution", "drift_range"]),
        (np.where(np.arange(200) % 4 == 0, np.nan, RNG.normal(size=200)), ["drift_missing"]),
        (np.full(200, np.nan), ["drift_unknown", "drift_missing"]),
        (RNG.normal(size=5), ["drift_unknown"]),
        (np.full(5, -300.0), ["drift_unknown", "drift_range"]),
    ],
    ids=["none", "shift", "narrow", "kelvin", "gaps", "empty", "few", "few and far"],
)
def test_what_is_reported(recent: np.ndarray, codes: list[str]) -> None:
    """Shift, spread, unit and gaps are told; five values tell only the range."""
    assert codes == _codes(RNG.normal(size=2000), recent)


def test_counts_with_many_zeros() -> None:
    """Equal values make fewer bins, and a change of the share of zeros is seen."""
    before = np.where(RNG.random(2000) < 0.7, 0.0, RNG.poisson(5, 2000))
    assert [] == _codes(before, before[:300])
    assert "drift_distribution" in _codes(before, RNG.poisson(5, 300).astype("float64"))


def test_constant_column() -> None:
    """A column that never changed has no distribution to compare; that it changes now is seen by its range."""
    assert ["drift_unknown"] == _codes(np.full(100, 3.0), np.full(50, 3.0))
    assert ["drift_unknown", "drift_range"] == _codes(np.full(100, 3.0), np.full(50, 4.0))


def test_season_is_no_drift() -> None:
    """Three months of one season are compared with the same months of earlier years."""
    training = _table(RAIN + RNG.normal(0, 0.1, len(RAIN)), PERIODS)
    months = [f"{year}-{month:02d}" for year in range(2020, 2030) for month in (4, 5, 6)]
    rain = np.array([math.sin(int(period[5:]) / 6 * math.pi) for period in months])
    recent = _table(rain + RNG.normal(0, 0.1, len(months)), months)
    assert ["drift_distribution"] == [found.code for found in check_drift(measure_drift(training, recent, ["rain"]))]
    seasonal = measure_drift(training, recent, ["rain"], season_of=lambda period: int(period[5:]))
    assert [] == list(check_drift(seasonal))


def test_limits_can_be_set() -> None:
    """What is reported depends on the limits."""
    drifts = measure_drift(_table(RNG.normal(size=2000)), _table(RNG.normal(1.5, 1, size=200)), ["rain"])
    assert () == check_drift(drifts, DriftLimits(psi=10))


def test_what_cannot_be_compared() -> None:
    """A column that recent data lacks is missing there; one that training lacks, or no rows, are errors."""
    table = _table(RNG.normal(size=100))
    assert 1.0 == measure_drift(table, table.drop(columns="rain"), ["rain"])[0].missing_now
    with pytest.raises(EvaluationError, match="training data has no column 'heat'"):
        measure_drift(table, table, ["heat"])
    with pytest.raises(EvaluationError, match="recent data has no row"):
        measure_drift(table, table.head(0), ["rain"])
