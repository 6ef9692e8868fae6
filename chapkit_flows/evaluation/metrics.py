"""The metrics: what each score of a forecast is, in which unit, and whether less or more of it is better.

Throughout, x_1 <= … <= x_m are the samples of a forecast, y is the truth, and F is the distribution of the samples:
each has weight 1/m. Quantiles are linear between samples (type 7 of Hyndman and Fan 1996, as numpy's default).
A forecast of one sample is a point. What a point does not have, such as an interval, is not a number there, and
such rows are left out of means and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chapkit_flows.errors import UnknownMetric

Numbers = NDArray[np.float64]
Orientation = Literal["lower", "higher", "nominal", "none"]

# The central intervals of the weighted interval score, by the probability outside them: those of the COVID-19
# Forecast Hub (Bracher et al. 2021).
WIS_ALPHAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """Forecasts and their truth, row by row.

    Attributes:
        samples: Of shape (n, m), finite, ascending in each row.
        truth: Of shape (n,), finite.
        scale: By which the normalised CRPS divides, of shape (n,); not a number where unknown.
        threshold: Above which a value is an outbreak, of shape (n,); not a number where unknown.
    """

    samples: Numbers
    truth: Numbers
    scale: Numbers
    threshold: Numbers

    @property
    def is_point(self) -> bool:
        """Whether there is one sample only."""
        return bool(self.samples.shape[1] == 1)

    def quantile(self, level: float) -> Numbers:
        """The quantile of each row."""
        position = level * (self.samples.shape[1] - 1)
        low = int(np.floor(position))
        below, above = self.samples[:, low], self.samples[:, min(low + 1, self.samples.shape[1] - 1)]
        result: Numbers = below + (position - low) * (above - below)
        return result

    @cached_property
    def crps(self) -> Numbers:
        """See the metric of that name."""
        return _ensemble_crps(self.truth, self.samples)

    @cached_property
    def below(self) -> Numbers:
        """F(y-): the share of samples that are smaller than the truth."""
        return _share(self.samples < self.truth[:, None])

    @cached_property
    def up_to(self) -> Numbers:
        """F(y): the share of samples that are not larger than the truth."""
        return _share(self.samples <= self.truth[:, None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The definition of a score.

    Attributes:
        name: The column it is kept in.
        title: For people.
        unit: `target` (that of the forecast column), `log`, `ratio`, `share`, `percent` or `nats`.
        orientation: Whether less or more is better, or to be near `nominal`; `none` describes only.
        function: From forecasts to one value per row; not a number where it is not defined.
        nominal: The value that a perfectly calibrated forecast has on average.
        summary: How rows are put together: their mean, or the root of their mean square.
    """

    name: str
    title: str
    unit: str
    orientation: Orientation
    function: Callable[[Forecasts], Numbers]
    nominal: float | None = None
    summary: Literal["mean", "root_mean_square"] = "mean"


def _share(samples: NDArray[np.bool_]) -> Numbers:
    share: Numbers = np.count_nonzero(samples, axis=1) / samples.shape[1]
    return share


def _scoringrules() -> Any:
    # It brings scipy, which takes a quarter of a second: no run that scores nothing must wait for it.
    return import_module("scoringrules")


def _ensemble_crps(truth: Numbers, samples: Numbers) -> Numbers:
    result: Numbers = _scoringrules().crps_ensemble(
        truth, samples, estimator="qd", sorted_ensemble=True, backend="numpy"
    )
    return np.asarray(result, dtype="float64").reshape(truth.shape)


def crps(forecasts: Forecasts) -> Numbers:
    """The continuous ranked probability score: mean |x_i - y| - 1/2 mean |x_i - x_j|, over all pairs.

    The score of the distribution as it was issued, not the "fair" one of an unlimited ensemble. Of a point it is
    the absolute error. Source: Gneiting and Raftery (2007), JASA 102, 359-378, eq. 21; computed by scoringrules
    from the quantile decomposition: 2/m^2 sum_i (x_i - y) (m 1{y < x_i} - i + 1/2).
    """
    return forecasts.crps


def crps_log1p(forecasts: Forecasts) -> Numbers:
    """The CRPS of log(1 + x) and log(1 + y): relative errors count, and large places do not drown small ones.

    Negative values count as 0. Source: Bosse et al. (2023), PLOS Computational Biology 19, e1011393.
    """
    samples, truth = (np.log1p(np.maximum(values, 0)) for values in (forecasts.samples, forecasts.truth))
    return _ensemble_crps(truth, samples)


def crps_normalised(forecasts: Forecasts) -> Numbers:
    """The CRPS over the mean absolute change from one period to the next of the place's training data.

    That is the error of a naive forecast one period ahead, as in the mean absolute scaled error: below 1 a forecast
    is better than that. Not defined where the training data does not change. Source: Hyndman and Koehler (2006),
    International Journal of Forecasting 22, 679-688.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(forecasts.scale > 0, forecasts.crps / forecasts.scale, np.nan)


def wis(forecasts: Forecasts) -> Numbers:
    """The weighted interval score: (|y - median| / 2 + sum_k alpha_k / 2 IS_alpha_k) / (K + 1/2), with K = 11.

    Twice the mean quantile loss over the 23 levels; of a point it is the absolute error. Source: Bracher et al.
    (2021), PLOS Computational Biology 17, e1008618. The sum is written here: `weighted_interval_score` of
    scoringrules 0.10 without numba adds the median itself, not its error.
    """
    total: Numbers = 0.5 * np.abs(forecasts.truth - forecasts.quantile(0.5))
    for alpha in WIS_ALPHAS:
        total += alpha / 2 * _interval_score(forecasts, alpha)
    total /= len(WIS_ALPHAS) + 0.5
    return total


def _interval_score(forecasts: Forecasts, alpha: float) -> Numbers:
    lower, upper = forecasts.quantile(alpha / 2), forecasts.quantile(1 - alpha / 2)
    result = _scoringrules().interval_score(forecasts.truth, lower, upper, alpha, backend="numpy")
    return np.asarray(result, dtype="float64").reshape(lower.shape)


def interval_score(forecasts: Forecasts, *, level: float) -> Numbers:
    """The interval (Winkler) score: u - l + 2/alpha (l - y) where y < l, + 2/alpha (y - u) where y > u.

    The interval is the central one of that level, alpha = 1 - level. Source: Winkler (1972), JASA 67, 187-191;
    Gneiting and Raftery (2007), eq. 43. Computed by scoringrules.
    """
    return _of_spread(forecasts, _interval_score(forecasts, 1 - level))


def coverage(forecasts: Forecasts, *, level: float) -> Numbers:
    """Whether the truth is in the central interval of that level, ends included: on average, `level` is ideal."""
    lower, upper = forecasts.quantile((1 - level) / 2), forecasts.quantile((1 + level) / 2)
    inside = (lower <= forecasts.truth) & (forecasts.truth <= upper)
    return _of_spread(forecasts, inside.astype("float64"))


def mae(forecasts: Forecasts) -> Numbers:
    """The absolute error of the median, for which it is a proper score (Gneiting 2011, JASA 106, 746-762)."""
    return np.abs(forecasts.truth - forecasts.quantile(0.5))


def rmse(forecasts: Forecasts) -> Numbers:
    """The error of the mean, without sign; rows are put together as the root of the mean square."""
    result: Numbers = np.abs(forecasts.truth - forecasts.samples.mean(axis=1))
    return result


def mape(forecasts: Forecasts) -> Numbers:
    """100 |y - median| / |y|: the absolute error of the median in percent; not defined where the truth is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(forecasts.truth == 0, np.nan, 100 * mae(forecasts) / np.abs(forecasts.truth))


def bias(forecasts: Forecasts) -> Numbers:
    """1 - F(y) - F(y-): from -1, all samples too low, to 1, all too high; 0 is ideal.

    Source: Funk et al. (2019), PLOS Computational Biology 15, e1006785.
    """
    result: Numbers = 1 - forecasts.up_to - forecasts.below
    return result


def pit(forecasts: Forecasts) -> Numbers:
    """The probability integral transform, in the middle of its step: (F(y-) + F(y)) / 2.

    Uniform where forecasts are calibrated. For counts the ends of the step are kept too (`pit_low`, `pit_high`):
    from them a histogram is made without chance. Source: Czado, Gneiting and Held (2009), Biometrics 65, 1254-1261.
    """
    return _of_spread(forecasts, (forecasts.below + forecasts.up_to) / 2)


def pit_low(forecasts: Forecasts) -> Numbers:
    """F(y-), the lower end of the step of the PIT."""
    return _of_spread(forecasts, forecasts.below)


def pit_high(forecasts: Forecasts) -> Numbers:
    """F(y), the upper end of the step of the PIT."""
    return _of_spread(forecasts, forecasts.up_to)


def log_score(forecasts: Forecasts) -> Numbers:
    """-log f(y), where f is a sum of Gaussian kernels on the samples.

    Their width is 1.06 min(s, IQR / 1.34) m^(-1/5) (Silverman 1986, section 3.4.2), with s alone where the IQR is
    0; not defined where all samples are equal. The logarithm is taken before the sum, so that a truth far away gives
    a large number, where `logs_ensemble` of scoringrules, which has the same definition, gives infinity.
    Source: Krüger et al. (2021), International Statistical Review 89, 274-301.
    """
    if forecasts.is_point:
        return np.full_like(forecasts.truth, np.nan)
    samples, count = forecasts.samples, forecasts.samples.shape[1]
    spread, quartiles = samples.std(axis=1, ddof=1), (forecasts.quantile(0.75) - forecasts.quantile(0.25)) / 1.34
    width = 1.06 * np.where(quartiles > 0, np.minimum(spread, quartiles), spread) * count ** (-1 / 5)
    # Equal samples can have a spread of rounding errors.
    width[samples[:, 0] == samples[:, -1]] = np.nan
    exponents = samples - forecasts.truth[:, None]
    exponents /= width[:, None]
    np.square(exponents, out=exponents)
    nearest = exponents.min(axis=1)
    exponents -= nearest[:, None]
    exponents *= -0.5
    densities = np.exp(exponents, out=exponents).mean(axis=1)
    result: Numbers = 0.5 * nearest - np.log(densities) + np.log(width * np.sqrt(2 * np.pi))
    return result


def sensitivity(forecasts: Forecasts) -> Numbers:
    """Of the rows with an outbreak, whether it was forecast: on average, the share of outbreaks that were.

    An outbreak is a value above the threshold of its place and season (`learn_yardstick`); it is forecast when at
    least half of the samples are above it.
    """
    return np.where(forecasts.truth > forecasts.threshold, _signal(forecasts), np.nan)


def specificity(forecasts: Forecasts) -> Numbers:
    """Of the rows without an outbreak, whether none was forecast. See `sensitivity`."""
    return np.where(forecasts.truth <= forecasts.threshold, 1 - _signal(forecasts), np.nan)


def _signal(forecasts: Forecasts) -> Numbers:
    above = _share(forecasts.samples > forecasts.threshold[:, None])
    return (above >= 0.5).astype("float64")


def _of_spread(forecasts: Forecasts, values: Numbers) -> Numbers:
    return np.full_like(values, np.nan) if forecasts.is_point else values


def _interval_metric(level: float) -> Metric:
    return Metric(
        name=f"interval_score_{level * 100:.0f}",
        title=f"Interval score, {level:.0%}",
        unit="target",
        orientation="lower",
        function=partial(interval_score, level=level),
    )


def _coverage_metric(level: float) -> Metric:
    return Metric(
        name=f"coverage_{level * 100:.0f}",
        title=f"Coverage of the {level:.0%} interval",
        unit="share",
        orientation="nominal",
        function=partial(coverage, level=level),
        nominal=level,
    )


LEVELS = (0.5, 0.8, 0.9, 0.95)
METRICS: tuple[Metric, ...] = (
    Metric(name="crps", title="CRPS", unit="target", orientation="lower", function=crps),
    Metric(name="crps_log1p", title="CRPS of log(1 + x)", unit="log", orientation="lower", function=crps_log1p),
    Metric(
        name="crps_normalised", title="CRPS / naive error", unit="ratio", orientation="lower", function=crps_normalised
    ),
    Metric(name="wis", title="Weighted interval score", unit="target", orientation="lower", function=wis),
    Metric(name="mae", title="MAE of the median", unit="target", orientation="lower", function=mae),
    Metric(
        name="rmse",
        title="RMSE of the mean",
        unit="target",
        orientation="lower",
        function=rmse,
        summary="root_mean_square",
    ),
    Metric(name="mape", title="MAPE of the median", unit="percent", orientation="lower", function=mape),
    *(_interval_metric(level) for level in LEVELS),
    *(_coverage_metric(level) for level in LEVELS),
    Metric(name="bias", title="Bias", unit="share", orientation="nominal", function=bias, nominal=0.0),
    Metric(name="log_score", title="Log score", unit="nats", orientation="lower", function=log_score),
    Metric(
        name="sensitivity", title="Sensitivity for outbreaks", unit="share", orientation="higher", function=sensitivity
    ),
    Metric(
        name="specificity", title="Specificity for outbreaks", unit="share", orientation="higher", function=specificity
    ),
    Metric(name="pit", title="PIT", unit="share", orientation="none", function=pit, nominal=0.5),
    Metric(name="pit_low", title="PIT, lower end of the step", unit="share", orientation="none", function=pit_low),
    Metric(name="pit_high", title="PIT, upper end of the step", unit="share", orientation="none", function=pit_high),
)
"""All that this package defines. Functions that score take `metrics=(*METRICS, mine)`."""


def metric_named(name: str, metrics: Sequence[Metric] = METRICS) -> Metric:
    """The definition of a metric.

    Raises:
        UnknownMetric: There is none of that name.
    """
    found = next((metric for metric in metrics if metric.name == name), None)
    if found is None:
        raise UnknownMetric(f"No metric {name!r}. Write one of {', '.join(metric.name for metric in metrics)}.")
    return found
