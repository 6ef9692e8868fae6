"""Which of several models is better, and whether the difference can be chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chapkit_flows.errors import EvaluationError
from chapkit_flows.evaluation.metrics import METRICS, Metric, metric_named
from chapkit_flows.evaluation.scores import KEYS

Numbers = NDArray[np.float64]
Unit = Literal["fold", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Whether the mean of paired differences can be zero.

    Attributes:
        statistic: None where there is none.
        p_value: Two-sided; None where there is none.
        note: Why there is none, or what is special.
    """

    statistic: float | None
    p_value: float | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Significance:
    """What two tests say about the differences of two models.

    Attributes:
        diebold_mariano: The test with the correction for small samples.
        bootstrap: The paired block bootstrap.
        low: Lower end of the 95 % interval of the mean difference, by percentiles of the bootstrap; None for one unit.
        high: Upper end of it.
        n_units: The number of folds, or of places, whose differences were tested.
    """

    diebold_mariano: PairedTest
    bootstrap: PairedTest
    low: float | None
    high: float | None
    n_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """One model beside the reference, on the rows that both have scores for.

    Attributes:
        model: Its name.
        mean: Its score.
        reference_mean: The score of the reference on the same rows.
        skill: 1 - mean / reference_mean: 0.1 is a tenth better, below 0 is worse; None where the reference has 0.
        difference: mean - reference_mean.
        low: Lower end of the 95 % bootstrap interval of the mean difference of folds or places (of the RMSE: of the
            squared errors).
        high: Upper end of it.
        p_value: Of the Diebold-Mariano test; None where it cannot be made.
        bootstrap_p_value: Of the paired block bootstrap.
        n_pairs: Rows that both have.
        n_units: Folds, or places, that both have.
        n_unpaired: Rows that only one of the two has, or where the metric is not defined for one of them.
        note: Why there is no p-value, or what is special.
    """

    model: str
    mean: float
    reference_mean: float
    skill: float | None
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    bootstrap_p_value: float | None
    n_pairs: int
    n_units: int
    n_unpaired: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models beside one reference, by one metric.

    Attributes:
        metric: Its name.
        reference: The model that the others are compared with.
        rows: A row per other model, the best skill first.
    """

    metric: str
    reference: str
    rows: tuple[ModelComparison, ...]

    def table(self) -> pd.DataFrame:
        """The rows as a frame, with a column per attribute."""
        return pd.DataFrame([asdict(row) for row in self.rows])

    def as_json(self) -> dict[str, Any]:
        """The whole comparison as plain JSON types."""
        return {"metric": self.metric, "reference": self.reference, "rows": [asdict(row) for row in self.rows]}


def compare(
    scores: Mapping[str, pd.DataFrame],
    metric: str = "crps",
    *,
    reference: str,
    unit: Unit = "fold",
    seed: int = 0,
    metrics: Sequence[Metric] = METRICS,
) -> Comparison:
    """Compare models with a reference, each on the intersection of its rows with those of the reference.

    Args:
        scores: By model, as `score_split` returns them, of all folds below each other.
        metric: One of which less is better: a skill is defined for those only.
        reference: The name of the model that the others are compared with: a baseline, or the champion.
        unit: What the tests take as one observation. See `significance`.
        seed: Of the bootstrap.
        metrics: The table of metrics.

    Raises:
        UnknownMetric: There is no such metric.
        EvaluationError: More of the metric is better, the reference has no scores, or two models have no row in common.
    """
    definition = metric_named(metric, metrics)
    if definition.orientation != "lower":
        raise EvaluationError(f"Models are compared by a metric of which less is better; {metric!r} is not one.")
    if reference not in scores:
        raise EvaluationError(f"There are no scores of {reference!r}; there are those of {', '.join(scores)}.")
    others = [name for name in scores if name != reference]
    rows = [
        _compare(name, *paired_rows(scores[name], scores[reference], metric), definition, unit=unit, seed=seed)
        for name in others
    ]
    rows.sort(key=lambda row: -math.inf if row.skill is None else row.skill, reverse=True)
    return Comparison(metric=metric, reference=reference, rows=tuple(rows))


def paired_rows(scores: pd.DataFrame, reference: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, int]:
    """The rows for which both have a score.

    Returns:
        `origin`, `location`, `time_period`, `score`, `reference`; and the number of rows that only one of them has.
    """
    tables = []
    for frame, name in ((scores, "score"), (reference, "reference")):
        if metric not in frame.columns:
            raise EvaluationError(f"The scores have no column {metric!r}. Score the forecasts with it first.")
        tables.append(frame.loc[frame[metric].notna(), [*KEYS, metric]].rename(columns={metric: name}))
    pairs = tables[0].merge(tables[1], on=KEYS)
    unpaired = len(tables[0]) + len(tables[1]) - 2 * len(pairs)
    return pairs.sort_values(KEYS).reset_index(drop=True), unpaired


def summary_of(values: pd.Series[float], metric: Metric) -> float:
    """Put the values of rows together as the metric wants: their mean, or the root of their mean square."""
    return float((values**2).mean() ** 0.5 if metric.summary == "root_mean_square" else values.mean())


def significance(pairs: pd.DataFrame, metric: Metric, *, unit: Unit = "fold", seed: int = 0) -> Significance:
    """Test whether two models differ.

    With folds as units, the rows of a fold are averaged and the folds, in order of time, are the sample: places and
    horizons of one fold share its weather and its outbreaks, and to count them as independent would make any
    difference significant. Where a period is forecast by several folds these overlap; both tests allow for it. A few
    overlapping folds cannot show much: with four of them hardly any difference is significant.

    With places as units, the rows of a place are averaged: that asks whether the difference holds across places in
    these periods, not whether it will in others, and takes places as independent, which neighbours are not.

    Args:
        pairs: As `paired_rows` returns them.
        metric: That of the scores; of the RMSE the squared errors are tested.
        unit: What is one observation.
        seed: Of the bootstrap.
    """
    if unit not in get_args(Unit):
        raise EvaluationError(f"unit is {unit!r}; write fold or place.")
    power = 2 if metric.summary == "root_mean_square" else 1
    difference = pairs["score"] ** power - pairs["reference"] ** power
    by = pairs["origin"] if unit == "fold" else pairs["location"]
    differences = difference.groupby(by).mean().sort_index().to_numpy(dtype="float64")
    overlap = int(pairs.groupby(["location", "time_period"])["origin"].nunique().max()) if unit == "fold" else 1
    test = diebold_mariano(differences, overlap)
    if len(differences) < max(2, overlap + 1):  # blocks as long as all of it would always give the same mean
        return Significance(diebold_mariano=test, bootstrap=test, low=None, high=None, n_units=len(differences))
    means = bootstrap_means(differences, overlap, seed=seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return Significance(
        diebold_mariano=test,
        bootstrap=bootstrap_test(means, differences),
        low=float(low),
        high=float(high),
        n_units=len(differences),
    )


def diebold_mariano(differences: Numbers, overlap: int = 1) -> PairedTest:
    """The test of equal accuracy, with the correction for small samples.

    DM = d / sqrt(V / n), where V = g_0 + 2 sum_{k<h} g_k with the autocovariances g of the differences, and h is how
    many of them overlap; times sqrt((n + 1 - 2h + h (h - 1) / n) / n), against Student's t with n - 1 degrees of
    freedom. Where V is not positive, which the formula allows, the autocovariances are weighted by 1 - k / h
    (Bartlett), for which it cannot be negative.

    Sources: Diebold and Mariano (1995), Journal of Business and Economic Statistics 13, 253-263; Harvey, Leybourne
    and Newbold (1997), International Journal of Forecasting 13, 281-291.

    Args:
        differences: One per fold, in order of time.
        overlap: How many consecutive folds share periods; 1 for none.
    """
    n = len(differences)
    if n < 2:
        return PairedTest(statistic=None, p_value=None, note="one fold or place only: no test")
    if not np.any(differences):
        return PairedTest(statistic=0.0, p_value=1.0, note="no difference anywhere")
    if overlap >= n:
        note = f"{n} folds of which {overlap} overlap: no test; make more splits, or a larger stride"
        return PairedTest(statistic=None, p_value=None, note=note)
    mean = float(differences.mean())
    centred = differences - mean
    covariances = [float(centred[lag:] @ centred[: n - lag]) / n for lag in range(overlap)]
    # Equal differences have a variance of rounding errors.
    if covariances[0] <= (1e-12 * abs(mean)) ** 2:
        return PairedTest(statistic=None, p_value=None, note="the same difference everywhere: no test")
    variance = covariances[0] + 2 * sum(covariances[1:])
    note = ""
    if variance <= 1e-9 * covariances[0]:
        weights = [1 - lag / overlap for lag in range(1, overlap)]
        variance = covariances[0] + 2 * float(np.dot(weights, covariances[1:]))
        note = "autocovariances with Bartlett's weights"
    correction = (n + 1 - 2 * overlap + overlap * (overlap - 1) / n) / n
    statistic = mean / math.sqrt(variance / n) * math.sqrt(correction)
    return PairedTest(statistic=statistic, p_value=2 * float(_special().stdtr(n - 1, -abs(statistic))), note=note)


def bootstrap_means(differences: Numbers, block: int = 1, *, seed: int = 0, n_resamples: int = 9_999) -> Numbers:
    """Means of differences that are drawn with replacement, in blocks of neighbours around a circle.

    Source: Politis and Romano (1992), A circular block-resampling procedure for stationary data.

    Args:
        differences: One per fold, in order of time.
        block: Length of a block: how many consecutive folds share periods.
        seed: Equal seeds give equal means.
        n_resamples: How many.
    """
    n = len(differences)
    size = min(block, n)
    starts = np.random.default_rng(seed).integers(0, n, (n_resamples, math.ceil(n / size)))
    drawn = (starts[:, :, None] + np.arange(size)).reshape(n_resamples, -1)[:, :n] % n
    means: Numbers = differences[drawn].mean(axis=1)
    return means


def bootstrap_test(means: Numbers, differences: Numbers) -> PairedTest:
    """How often the mean of a resample is as far from the observed mean as that is from zero.

    p = (1 + #{|d* - d| >= |d|}) / (1 + B): Davison and Hinkley (1997), Bootstrap methods and their application, 4.4.
    """
    mean = float(differences.mean())
    # Sums in another order differ in the last digit.
    as_far = np.abs(means - mean) >= abs(mean) * (1 - 1e-12)
    return PairedTest(statistic=mean, p_value=float((1 + np.count_nonzero(as_far)) / (1 + len(means))))


def _compare(
    name: str, pairs: pd.DataFrame, n_unpaired: int, metric: Metric, *, unit: Unit, seed: int
) -> ModelComparison:
    if pairs.empty:
        raise EvaluationError(
            f"{name} and the reference have no scored row of {metric.name} in common: no place and period of the same "
            "origin. Backtest them on the same data with the same splits."
        )
    mean, other = summary_of(pairs["score"], metric), summary_of(pairs["reference"], metric)
    tested = significance(pairs, metric, unit=unit, seed=seed)
    return ModelComparison(
        model=name,
        mean=mean,
        reference_mean=other,
        skill=1 - mean / other if other else None,
        difference=mean - other,
        low=tested.low,
        high=tested.high,
        p_value=tested.diebold_mariano.p_value,
        bootstrap_p_value=tested.bootstrap.p_value,
        n_pairs=len(pairs),
        n_units=tested.n_units,
        n_unpaired=n_unpaired,
        note=tested.diebold_mariano.note,
    )


def _special() -> Any:
    # It takes a quarter of a second to load: no run that compares nothing must wait for it.
    return import_module("scipy.special")
