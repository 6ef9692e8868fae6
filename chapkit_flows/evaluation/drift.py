"""Drift: whether the values of recent data are still like those that a model was trained on, column by column."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from chapkit_flows.errors import EvaluationError
from chapkit_flows.refs import Diagnostic

Numbers = NDArray[np.float64]

_BINS = 10
_PER_BIN = 5  # expected values in a bin below which a share of it says little
_ADDED = 0.5  # to each count: a bin that is empty on one side would make the index infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLimits:
    """From where on a change is reported.

    Attributes:
        psi: Of the population stability index; 0.25 is the usual rule for a large shift, 0.1 for a small one.
        missing: Of the increase of the share of missing values.
        outside: Of the share of values outside of the range of the training data.
    """

    psi: float = 0.25
    missing: float = 0.1
    outside: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDrift:
    """How one column has changed.

    Attributes:
        column: Its name.
        psi: The population stability index; None where too few values are known to tell.
        psi_by_chance: What the index stays below in 19 of 20 cases if nothing has changed, for this many values.
        missing_before: Share of missing values in the training data.
        missing_now: The same in the recent data.
        below: Share of recent values below the smallest one of the training data.
        above: Share of recent values above the largest one.
        n_before: Known values in the training data.
        n_now: Known values in the recent data.
    """

    column: str
    psi: float | None
    psi_by_chance: float | None
    missing_before: float
    missing_now: float
    below: float
    above: float
    n_before: int
    n_now: int


def measure_drift(
    training: pd.DataFrame,
    recent: pd.DataFrame,
    columns: Sequence[str],
    *,
    season_of: Callable[[str], int] | None = None,
) -> tuple[ColumnDrift, ...]:
    """Compare recent data with training data.

    Args:
        training: What the model was trained on.
        recent: What came since.
        columns: Numeric columns that `training` has; one that `recent` lacks counts as wholly missing.
        season_of: The position of a period in its year. With it the distribution of recent values is compared with
            that of the same seasons only: three rainy months are no drift from a whole year.

    Raises:
        EvaluationError: `training` lacks a column, or has no row, or `recent` has none.
    """
    if training.empty or recent.empty:
        raise EvaluationError(f"The {'training' if training.empty else 'recent'} data has no row to compare.")
    if lacking := [name for name in columns if name not in training.columns]:
        raise EvaluationError(f"The training data has no column {lacking[0]!r} to compare.")
    like = training
    if season_of is not None:
        seasons = set(recent["time_period"].map(season_of))
        same = training[training["time_period"].map(season_of).isin(seasons)]
        like = training if same.empty else same
    return tuple(_measure(name, training, like, recent) for name in columns)


def _measure(name: str, training: pd.DataFrame, like: pd.DataFrame, recent: pd.DataFrame) -> ColumnDrift:
    now = recent[name] if name in recent.columns else pd.Series(np.nan, index=recent.index)
    known, ever = _known(now), _known(training[name])
    psi, by_chance = stability_index(_known(like[name]), known)
    smallest, largest = (ever.min(), ever.max()) if len(ever) else (-math.inf, math.inf)
    return ColumnDrift(
        column=name,
        psi=psi,
        psi_by_chance=by_chance,
        missing_before=float(training[name].isna().mean()),
        missing_now=float(now.isna().mean()),
        below=float((known < smallest).mean()) if len(known) else 0.0,
        above=float((known > largest).mean()) if len(known) else 0.0,
        n_before=len(ever),
        n_now=len(known),
    )


def _known(values: pd.Series[float]) -> Numbers:
    return np.asarray(values.dropna(), dtype=np.float64)


def stability_index(before: Numbers, now: Numbers) -> tuple[float | None, float | None]:
    """The population stability index, and what it stays below by chance.

    PSI = sum over bins of (a - e) ln(a / e), with the shares e of the training values and a of the recent ones. The
    bins are cut at quantiles of the training values: ten, or fewer where there are fewer than five recent values for
    each, or where many values are equal. 0.5 is added to each count. Source: Siddiqi (2006), Credit risk scorecards.

    Without any change, PSI / (1 / n + 1 / m) is distributed as chi-squared with one degree of freedom less than there
    are bins: few values alone make it large. Source: Yurdakul (2018), Statistical properties of the population
    stability index.

    Returns:
        The index, and the 95 % quantile of it if nothing has changed; None and None for fewer than ten values on one
        side, or if all training values are equal (then the range tells).
    """
    bins = min(_BINS, len(before) // _PER_BIN, len(now) // _PER_BIN)
    if bins < 2:
        return None, None
    cuts = np.unique(np.quantile(before, np.arange(1, bins) / bins))
    # With a cut at the largest value nothing would be in the last bin.
    cuts = cuts[cuts < before.max()]
    if not len(cuts):
        return None, None
    counts = [np.bincount(np.searchsorted(cuts, each, side="left"), minlength=len(cuts) + 1) for each in (before, now)]
    expected, actual = ((count + _ADDED) / (count.sum() + _ADDED * len(count)) for count in counts)
    psi = float(((actual - expected) * np.log(actual / expected)).sum())
    by_chance = float(_special().chdtri(len(cuts), 0.05)) * (1 / len(before) + 1 / len(now))
    return psi, by_chance


def check_drift(drifts: Sequence[ColumnDrift], limits: DriftLimits | None = None) -> tuple[Diagnostic, ...]:
    """Say which changes are beyond the limits: warnings, by column; information where it cannot be told.

    A stability index counts only if it is also larger than by chance.
    """
    limit = limits or DriftLimits()
    findings = []
    for drift in drifts:
        field, name = f"data.{drift.column}", drift.column
        if drift.psi is None or drift.psi_by_chance is None:
            message = (
                f"Whether the distribution of {name!r} has changed cannot be told from {drift.n_now} recent and "
                f"{drift.n_before} training values."
            )
            findings.append(Diagnostic.info("drift_unknown", message, field))
        elif drift.psi > max(limit.psi, drift.psi_by_chance):
            message = (
                f"The distribution of {name!r} has changed: its stability index is {drift.psi:.2f}, above "
                f"{limit.psi:g} and above {drift.psi_by_chance:.2f}, which few values reach by chance."
            )
            findings.append(Diagnostic.warning("drift_distribution", message, field))
        if drift.missing_now - drift.missing_before > limit.missing:
            message = (
                f"{drift.missing_now:.0%} of the recent values of {name!r} are missing, {drift.missing_before:.0%} of "
                "those in training."
            )
            findings.append(Diagnostic.warning("drift_missing", message, field))
        if drift.below + drift.above > limit.outside:
            message = (
                f"{drift.below + drift.above:.0%} of the recent values of {name!r} are outside of the range in "
                f"training: {drift.below:.0%} below, {drift.above:.0%} above. Check the unit."
            )
            findings.append(Diagnostic.warning("drift_range", message, field))
    return tuple(findings)


def _special() -> Any:
    # It takes a quarter of a second to load: no run that compares nothing must wait for it.
    return import_module("scipy.special")
