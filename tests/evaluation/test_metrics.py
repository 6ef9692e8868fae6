"""Each metric is its formula: by hand, by an independent implementation, and by what must hold for any forecast."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from chapkit_flows.errors import UnknownMetric
from chapkit_flows.evaluation.metrics import METRICS, WIS_ALPHAS, Forecasts, Metric, metric_named

RNG = np.random.default_rng(5)
SAMPLES = RNG.negative_binomial(3, 0.05, (40, 101)).astype("float64")
TRUTH = RNG.negative_binomial(3, 0.05, 40).astype("float64")


def _forecasts(samples: object, truth: object, scale: float = math.nan, threshold: float = math.nan) -> Forecasts:
    values = np.sort(np.atleast_2d(np.asarray(samples, dtype="float64")), axis=1)
    known = np.atleast_1d(np.asarray(truth, dtype="float64"))
    full = np.full(len(known), 1.0)
    return Forecasts(samples=values, truth=known, scale=full * scale, threshold=full * threshold)


def _value(name: str, forecasts: Forecasts) -> np.ndarray:
    return metric_named(name).function(forecasts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The samples are 3, 2, 1, 1, 1 away from the truth: 1.6 on average; their pairs are 1.76 apart.
        ("crps", 1.6 - 1.76 / 2),
        ("crps_normalised", (1.6 - 1.76 / 2) / 4),
        ("mae", 1.0),
        ("rmse", 0.8),
        ("mape", 25.0),
        ("interval_score_50", 5.0 - 2.0),
        ("interval_score_80", 5.0 - 1.4),
        ("coverage_50", 1.0),
        ("coverage_95", 1.0),
        ("bias", 1 - 0.6 - 0.6),
        ("pit", 0.6),
        ("pit_low", 0.6),
        ("pit_high", 0.6),
        ("sensitivity", 1.0),
        ("specificity", math.nan),
    ],
)
def test_by_hand(name: str, expected: float) -> None:
    """Samples 1, 2, 3, 5, 5 are scored against 4 as on paper."""
    assert expected == pytest.approx(_value(name, _forecasts([1, 2, 3, 5, 5], 4, scale=4, threshold=2))[0], nan_ok=True)


@pytest.mark.parametrize(
    ("name", "truth", "expected"),
    [
        ("interval_score_50", 6.0, 3 + 2 / 0.5 * 1),
        ("interval_score_50", 1.0, 3 + 2 / 0.5 * 1),
        ("coverage_50", 5.0, 1.0),
        ("coverage_50", 5.5, 0.0),
        ("pit", 5.0, 0.8),
        ("bias", 5.0, -0.6),
        ("mape", 0.0, math.nan),
        ("crps_log1p", 2.0, None),
        ("sensitivity", 4.0, math.nan),
        ("specificity", 4.0, 1.0),
        ("sensitivity", 4.5, 0.0),
    ],
)
def test_by_hand_at_the_edges(name: str, truth: float, expected: float | None) -> None:
    """Outside, on the end of an interval, on a sample, at zero, on the threshold of an outbreak."""
    forecasts = _forecasts([1, 2, 3, 5, 5], truth, threshold=4)
    if expected is None:
        logs = np.log([2, 3, 4, 6, 6])
        expected = np.abs(logs - np.log(3)).mean() - np.abs(logs[:, None] - logs).mean() / 2
    assert expected == pytest.approx(_value(name, forecasts)[0], nan_ok=True)


def _crps_integral(samples: np.ndarray, truth: float) -> float:
    """The integral of (F(x) - 1{x >= y})^2, piece by piece."""
    ends = np.sort(np.append(samples, truth))
    middle = (ends[1:] + ends[:-1]) / 2
    below = (samples[None, :] <= middle[:, None]).mean(axis=1)
    return float((np.diff(ends) * (below - (middle >= truth)) ** 2).sum())


def test_crps_is_the_integral_and_the_energy_form() -> None:
    """Two other forms of the CRPS, and another estimator of the library, give the same numbers."""
    expected = [_crps_integral(row, known) for row, known in zip(SAMPLES, TRUTH, strict=True)]
    found = _value("crps", _forecasts(SAMPLES, TRUTH))
    np.testing.assert_allclose(expected, found, atol=1e-9)
    np.testing.assert_allclose(scoringrules.crps_ensemble(TRUTH, SAMPLES, estimator="nrg"), found, atol=1e-9)


def test_crps_log1p_is_the_crps_of_logarithms() -> None:
    """The score on the log scale is that of the transformed samples; what is negative counts as zero."""
    found = _value("crps_log1p", _forecasts(SAMPLES - 20, TRUTH))
    logs = np.log1p(np.clip(SAMPLES - 20, 0, None))
    expected = [_crps_integral(row, known) for row, known in zip(logs, np.log1p(TRUTH), strict=True)]
    np.testing.assert_allclose(expected, found, atol=1e-9)


def _quantile_losses(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Twice the mean quantile loss over the median and both ends of each interval: another definition of the WIS."""
    levels = np.array([0.5, *(alpha / 2 for alpha in WIS_ALPHAS), *(1 - alpha / 2 for alpha in WIS_ALPHAS)])
    quantiles = np.quantile(samples, levels, axis=1)
    losses = ((truth <= quantiles) - levels[:, None]) * (quantiles - truth)
    return 2 * losses.mean(axis=0)


def test_wis_is_twice_the_quantile_loss() -> None:
    """The interval form and the quantile form of the WIS agree, inside and far outside of the samples."""
    for truth in (TRUTH, TRUTH + 1000, TRUTH - 1000):
        np.testing.assert_allclose(
            _quantile_losses(SAMPLES, truth), _value("wis", _forecasts(SAMPLES, truth)), rtol=1e-9
        )


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_intervals_are_quantiles(level: float) -> None:
    """Interval score and coverage are those of numpy's quantiles."""
    lower, upper = np.quantile(SAMPLES, [(1 - level) / 2, (1 + level) / 2], axis=1)
    alpha = 1 - level
    penalty = np.maximum(lower - TRUTH, 0) + np.maximum(TRUTH - upper, 0)
    forecasts = _forecasts(SAMPLES, TRUTH)
    found = _value(f"interval_score_{level * 100:.0f}", forecasts)
    np.testing.assert_allclose(upper - lower + 2 / alpha * penalty, found, atol=1e-9)
    np.testing.assert_array_equal((lower <= TRUTH) & (upper >= TRUTH), _value(f"coverage_{level * 100:.0f}", forecasts))


def test_log_score_is_a_kernel_density() -> None:
    """The log score is that of a mixture of normal densities, of scipy and of the library."""
    found = _value("log_score", _forecasts(SAMPLES, TRUTH))
    np.testing.assert_allclose(scoringrules.logs_ensemble(TRUTH, SAMPLES), found, atol=1e-9)
    row, known = SAMPLES[0], TRUTH[0]
    width = 1.06 * min(row.std(ddof=1), np.subtract(*np.quantile(row, [0.75, 0.25])) / 1.34) * len(row) ** -0.2
    assert -math.log(stats.norm.pdf(known, row, width).mean()) == pytest.approx(found[0])
    density, _ = integrate.quad(lambda x: math.exp(-_value("log_score", _forecasts(row, x))[0]), -200, 400, limit=200)
    assert 1 == pytest.approx(density, abs=1e-4)


def test_log_score_far_away_is_finite() -> None:
    """A truth a million widths away scores badly, not infinitely; equal samples have no density."""
    assert math.isfinite(_value("log_score", _forecasts([1, 2, 3, 4], 1e6))[0])
    assert np.isnan(_value("log_score", _forecasts([0.1, 0.1, 0.1], 3))[0])
    assert math.isfinite(_value("log_score", _forecasts([0, 0, 0, 0, 0, 9], 3))[0])


POINT_HAS_NO = {"pit", "pit_low", "pit_high", "log_score"} | {
    f"{kind}_{level}" for kind in ("coverage", "interval_score") for level in (50, 80, 90, 95)
}


def test_a_point_has_no_spread() -> None:
    """One sample has an error, a bias and a signal, but no interval, density or PIT."""
    forecasts = _forecasts([[3.0]], 5.0, scale=1, threshold=4)
    undefined = {metric.name for metric in METRICS if np.isnan(metric.function(forecasts)[0])}
    assert POINT_HAS_NO | {"specificity"} == undefined
    assert [2.0] * 4 == [_value(name, forecasts)[0] for name in ("crps", "wis", "mae", "rmse")]


FINITE = st.floats(-1e4, 1e4, allow_subnormal=False).map(lambda value: round(value, 3))
ROWS = arrays("float64", (3, 7), elements=FINITE)
VALUES = arrays("float64", (3,), elements=FINITE)
IN_UNITS = ("crps", "wis", "mae", "rmse", "interval_score_50", "interval_score_90")


@settings(max_examples=60, deadline=None)
@given(ROWS, VALUES, FINITE, st.floats(0.1, 100))
def test_shift_and_scale(samples: np.ndarray, truth: np.ndarray, shift: float, factor: float) -> None:
    """Scores in the unit of the target are not negative, do not feel a shift, and grow with the unit."""
    plain, moved = _forecasts(samples, truth), _forecasts(samples * factor + shift, truth * factor + shift)
    for name in IN_UNITS:
        score = _value(name, plain)
        assert (score >= -1e-9).all()
        np.testing.assert_allclose(score * factor, _value(name, moved), rtol=1e-6, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(ROWS, VALUES, st.permutations(range(7)))
def test_order_of_samples(samples: np.ndarray, truth: np.ndarray, order: list[int]) -> None:
    """Samples have no order."""
    for metric in METRICS:
        np.testing.assert_array_equal(
            metric.function(_forecasts(samples, truth)), metric.function(_forecasts(samples[:, order], truth))
        )


@settings(max_examples=60, deadline=None)
@given(ROWS, VALUES)
def test_definitions_agree(samples: np.ndarray, truth: np.ndarray) -> None:
    """CRPS is the integral, WIS the quantile loss, for any samples, with and without ties."""
    forecasts = _forecasts(samples, truth)
    expected = [_crps_integral(row, known) for row, known in zip(samples, truth, strict=True)]
    np.testing.assert_allclose(expected, _value("crps", forecasts), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(_quantile_losses(samples, truth), _value("wis", forecasts), rtol=1e-7, atol=1e-6)


def test_proper_scores_prefer_the_true_distribution() -> None:
    """On average the distribution that the truth comes from scores better than one that is too wide or off."""
    truth, true = RNG.normal(size=2000), RNG.normal(size=(2000, 200))
    for name in ("crps", "wis", "log_score", "interval_score_80"):
        best = _value(name, _forecasts(true, truth)).mean()
        assert all(best < _value(name, _forecasts(other, truth)).mean() for other in (true * 2, true / 2, true + 0.7))


def test_metrics_have_names_of_their_own() -> None:
    """Names are unique; what has an ideal value says which."""
    assert len(METRICS) == len({metric.name for metric in METRICS})
    assert all(metric.nominal is not None for metric in METRICS if metric.orientation == "nominal")


def test_table_of_metrics_can_be_extended() -> None:
    """A metric of one's own is found in a table that has it, and not in the package's."""
    width = Metric(
        name="width", title="Range", unit="target", orientation="none", function=lambda f: np.ptp(f.samples, axis=1)
    )
    assert width is metric_named("width", (*METRICS, width))
    with pytest.raises(UnknownMetric, match=r"No metric 'width'\. Write one of crps, crps_log1p"):
        metric_named("width")
