"""Models are compared on what both were scored on, and chance is told from skill."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from chapkit_flows.errors import EvaluationError, UnknownMetric
from chapkit_flows.evaluation.comparison import (
    bootstrap_means,
    bootstrap_test,
    compare,
    diebold_mariano,
    paired_rows,
)

DIFFERENCES = np.array([0.5, -0.2, 0.9, 0.4, 1.1, -0.1, 0.3, 0.8])
MONTHS = [f"2020-{month:02d}" for month in range(1, 13)]


def _scores(values: np.ndarray, *, ahead: int = 1, metric: str = "crps") -> pd.DataFrame:
    """Scores of shape (folds, places): each fold has its own origin, and forecasts `ahead` periods equally well."""
    rows = [
        (MONTHS[fold], f"place {place}", MONTHS[fold + step], values[fold, place])
        for fold, place in np.ndindex(*values.shape)
        for step in range(1, ahead + 1)
    ]
    return pd.DataFrame(rows, columns=["origin", "location", "time_period", metric])


BASE = np.random.default_rng(2).gamma(4, 2, (8, 3))


def test_without_overlap_it_is_students_test() -> None:
    """For folds that do not overlap the corrected test is the paired t-test of scipy."""
    expected = stats.ttest_1samp(DIFFERENCES, 0)
    found = diebold_mariano(DIFFERENCES)
    assert (expected.statistic, expected.pvalue) == pytest.approx((found.statistic, found.p_value), abs=1e-12)


@pytest.mark.parametrize("overlap", [2, 3])
def test_correction_for_small_samples(overlap: int) -> None:
    """The test is the formula of Harvey, Leybourne and Newbold, written out with loops."""
    n, mean = len(DIFFERENCES), DIFFERENCES.mean()

    def covariance(lag: int) -> float:
        return sum((DIFFERENCES[t] - mean) * (DIFFERENCES[t - lag] - mean) for t in range(lag, n)) / n

    variance = covariance(0) + 2 * sum(covariance(lag) for lag in range(1, overlap))
    note = ""
    if variance <= 0:
        variance = covariance(0) + 2 * sum((1 - lag / overlap) * covariance(lag) for lag in range(1, overlap))
        note = "autocovariances with Bartlett's weights"
    statistic = mean / math.sqrt(variance / n)
    statistic *= math.sqrt((n + 1 - 2 * overlap + overlap * (overlap - 1) / n) / n)
    found = diebold_mariano(DIFFERENCES, overlap)
    assert (statistic, 2 * stats.t.sf(statistic, n - 1), note) == pytest.approx(
        (found.statistic, found.p_value, found.note), abs=1e-12
    )


def test_variance_that_is_not_positive() -> None:
    """Alternating differences have a negative variance by the plain formula: Bartlett's weights take its place."""
    found = diebold_mariano(np.array([1.0, 0, 1, 0, 1, 0, 1.5, 0]), 2)
    assert "Bartlett" in found.note
    assert found.statistic is not None and 0 < found.statistic < math.inf


@pytest.mark.parametrize(
    ("differences", "overlap", "p_value", "note"),
    [
        ([0.0, 0, 0], 1, 1.0, "no difference anywhere"),
        ([0.3], 1, None, "one fold or place only"),
        ([0.3, 0.3, 0.3], 1, None, "the same difference everywhere"),
        ([0.1, 0.2, 0.3], 3, None, "3 folds of which 3 overlap: no test; make more splits"),
    ],
)
def test_no_test(differences: list[float], overlap: int, p_value: float | None, note: str) -> None:
    """Where there is no test there is no p-value, but the reason; equal models have a p-value of 1."""
    found = diebold_mariano(np.array(differences), overlap)
    assert p_value == found.p_value
    assert note in found.note


def test_bootstrap_against_every_resample() -> None:
    """For four folds the p-value is close to that over all 256 resamples, each taken once."""
    differences = np.array([0.5, -0.2, 0.9, 0.4])
    mean = differences.mean()
    every = np.array([np.mean(drawn) for drawn in itertools.product(differences, repeat=4)])
    exact = (np.abs(every - mean) >= abs(mean) - 1e-12).mean()
    found = bootstrap_test(bootstrap_means(differences), differences)
    assert exact == pytest.approx(found.p_value, abs=0.01)
    assert every.std() == pytest.approx(bootstrap_means(differences).std(), rel=0.02)


def test_blocks_are_neighbours_around_a_circle() -> None:
    """With blocks of two, each resample is made of pairs that follow each other, the last with the first."""
    values = np.array([1.0, 10, 100, 1000])
    pairs = [11.0, 110.0, 1100.0, 1001.0]
    possible = {(first + second) / 4 for first in pairs for second in pairs}
    assert possible == set(np.unique(bootstrap_means(values, 2)))


def test_bootstrap_is_seeded() -> None:
    """Equal seeds give equal p-values, other seeds other resamples."""
    np.testing.assert_array_equal(bootstrap_means(DIFFERENCES, seed=4), bootstrap_means(DIFFERENCES, seed=4))
    assert not np.array_equal(bootstrap_means(DIFFERENCES, seed=4), bootstrap_means(DIFFERENCES, seed=5))


def test_p_values_are_uniform_under_no_difference() -> None:
    """Models that do not differ are called different in about one of ten cases at p < 0.1."""
    random = np.random.default_rng(0)
    found = [diebold_mariano(random.normal(size=10)).p_value for _ in range(2000)]
    assert 0.1 == pytest.approx(np.mean(np.array(found) < 0.1), abs=0.02)


def test_comparison_table() -> None:
    """A row has the scores on common rows, the skill, the difference, and what the tests say."""
    noise = np.random.default_rng(3).normal(0.5, 0.3, BASE.shape)
    comparison = compare({"base": _scores(BASE), "rain": _scores(BASE - noise)}, reference="base")
    (row,) = comparison.rows
    assert ("rain", 24, 8, 0, "") == (row.model, row.n_pairs, row.n_units, row.n_unpaired, row.note)
    assert 1 - (BASE - noise).mean() / BASE.mean() == pytest.approx(row.skill)
    assert -noise.mean() == pytest.approx(row.difference)
    test = stats.ttest_rel((BASE - noise).mean(axis=1), BASE.mean(axis=1))
    assert test.pvalue == pytest.approx(row.p_value, abs=1e-9)
    assert row.low is not None and row.high is not None and row.low < row.difference < row.high < 0
    assert row.bootstrap_p_value == pytest.approx(1 / 10_000)
    assert "rain" == comparison.table().loc[0, "model"]
    assert comparison.as_json() == json.loads(json.dumps(comparison.as_json()))


def test_best_skill_comes_first() -> None:
    """The rows are in order of skill."""
    scores = {"base": _scores(BASE), "worse": _scores(BASE * 1.5), "better": _scores(BASE * 0.5)}
    rows = compare(scores, reference="base").rows
    assert [("better", 0.5), ("worse", -0.5)] == [(row.model, round(row.skill or 0, 9)) for row in rows]


def test_only_common_rows_count() -> None:
    """A fold, a place or a row that one of the two lacks is left out of both, and counted."""
    other = _scores(BASE * 0.9)
    other = other[other["origin"] != "2020-01"].copy()
    other.loc[other.index[0], "crps"] = np.nan
    row = compare({"base": _scores(BASE), "rain": other}, reference="base").rows[0]
    assert (20, 7, 4) == (row.n_pairs, row.n_units, row.n_unpaired)
    assert 0.1 == pytest.approx(row.skill)


def test_overlap_is_read_from_the_rows() -> None:
    """Folds that forecast three periods each, one period apart, overlap by three."""
    scores = {"base": _scores(BASE, ahead=3), "rain": _scores(BASE - DIFFERENCES[:, None], ahead=3)}
    row = compare(scores, reference="base").rows[0]
    assert diebold_mariano(-DIFFERENCES, 3).p_value == pytest.approx(row.p_value)


def test_places_as_units() -> None:
    """With places as units the means of places are compared, whatever folds overlap."""
    worse = BASE + np.random.default_rng(1).normal(size=BASE.shape)
    row = compare(
        {"base": _scores(BASE, ahead=3), "rain": _scores(worse, ahead=3)}, reference="base", unit="place"
    ).rows[0]
    assert 3 == row.n_units
    assert stats.ttest_rel(worse.mean(axis=0), BASE.mean(axis=0)).pvalue == pytest.approx(row.p_value)


def test_rmse_is_compared_by_its_squares() -> None:
    """The mean is the root of the mean square, and the tests take the squared errors."""
    scores = {"base": _scores(BASE, metric="rmse"), "rain": _scores(BASE + 1, metric="rmse")}
    row = compare(scores, "rmse", reference="base").rows[0]
    assert ((BASE + 1) ** 2).mean() ** 0.5 == pytest.approx(row.mean)
    squares = ((BASE + 1) ** 2).mean(axis=1), (BASE**2).mean(axis=1)
    assert stats.ttest_rel(*squares).pvalue == pytest.approx(row.p_value)


def test_one_fold_has_skill_without_a_p_value() -> None:
    """With one fold there is a skill, and no test, and it says so."""
    row = compare({"base": _scores(BASE[:1]), "rain": _scores(BASE[:1] / 2)}, reference="base").rows[0]
    assert (0.5, None, None, None) == (row.skill, row.p_value, row.bootstrap_p_value, row.low)
    assert "one fold or place only" in row.note


def test_folds_that_all_overlap_have_no_interval() -> None:
    """Where every fold overlaps with every other there is no test, and no interval without a width."""
    worse = BASE[:2] + np.arange(6.0).reshape(2, 3)
    row = compare({"base": _scores(BASE[:2], ahead=3), "rain": _scores(worse, ahead=3)}, reference="base").rows[0]
    assert (None, None, None, None) == (row.p_value, row.bootstrap_p_value, row.low, row.high)
    assert "2 folds of which 2 overlap" in row.note


def test_perfect_reference_has_no_skill() -> None:
    """Against a reference without error no skill is defined."""
    row = compare({"base": _scores(BASE * 0), "rain": _scores(BASE)}, reference="base").rows[0]
    assert row.skill is None


@pytest.mark.parametrize(
    ("metric", "reference", "kind", "message"),
    [
        ("crpss", "base", UnknownMetric, "No metric 'crpss'"),
        ("coverage_90", "base", EvaluationError, "of which less is better; 'coverage_90' is not one"),
        ("crps", "champion", EvaluationError, "no scores of 'champion'; there are those of base, rain"),
        ("mae", "base", EvaluationError, "no column 'mae'"),
    ],
)
def test_what_cannot_be_compared(metric: str, reference: str, kind: type[Exception], message: str) -> None:
    """What is missing is named."""
    with pytest.raises(kind, match=message):
        compare({"base": _scores(BASE), "rain": _scores(BASE)}, metric, reference=reference)


def test_nothing_in_common() -> None:
    """Two backtests of other origins are not compared."""
    other = _scores(BASE).assign(origin="2019-01")
    with pytest.raises(EvaluationError, match="no scored row of crps in common"):
        compare({"base": _scores(BASE), "rain": other}, reference="base")
    assert 48 == paired_rows(other, _scores(BASE), "crps")[1]


def test_unknown_unit() -> None:
    """A unit that is none is named."""
    with pytest.raises(EvaluationError, match="unit is 'horizon'"):
        compare({"base": _scores(BASE), "rain": _scores(BASE)}, reference="base", unit="horizon")
