"""Forecasts from what was known at their origin, and how much better they would have looked on revised data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from chapkit_flows.errors import EvaluationError
from chapkit_flows.evaluation.comparison import ModelComparison, compare
from chapkit_flows.evaluation.covariates import FutureCovariates, future_covariates
from chapkit_flows.evaluation.metrics import METRICS
from chapkit_flows.evaluation.splits import Split

OPTIMISM_METRICS = ("crps", "crps_log1p", "wis", "mae")

_KEYS = ["time_period", "location"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was known when a forecast was made.

    Attributes:
        origin: The last period to learn from.
        known_by: The day at whose end it was known, as ISO 8601.
        places: Of which something was known.
        reported: Places whose target was known for the origin itself.
        completeness: The sum of the target at the origin as it was known then, as a share of what it is now, over
            the places that had reported; None if that is zero or nobody had.
        revised: The share of the known values of the target that are others by now.
    """

    origin: str
    known_by: str
    places: int
    reported: int
    completeness: float | None
    revised: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def complete_known(
    known: pd.DataFrame,
    split: Split,
    columns: Sequence[str],
    *,
    method: FutureCovariates,
    season_of: Callable[[str], int],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to learn from and the rows to forecast, from nothing but what was known.

    Each place has a row for each period from its first known one in the training periods up to the origin. The target
    of a row that nobody had reported is missing, and its covariates are what stands for those of the periods ahead.

    Args:
        known: A row per place and period that was known.
        split: The training and test periods.
        columns: The covariates.
        method: What stands for covariates that are not known.
        season_of: The position of a period in its year.

    Raises:
        EvaluationError: Nothing was known of the training periods; or `method` is `observed`, which nobody had.
    """
    if method == "observed":
        raise EvaluationError("The covariates observed later were not known at the origin. Use climatology.")
    historic = split.training(known)
    if historic.empty:
        raise EvaluationError(f"Nothing was known of {split.train_periods[0]} to {split.origin} at this origin.")
    first = historic.groupby("location", sort=True)["time_period"].min()
    grid = pd.DataFrame(
        [
            (period, place)
            for place, start in first.items()
            for period in (*split.train_periods, *split.test_periods)
            if period >= start
        ],
        columns=_KEYS,
    ).astype("str")
    unknown = grid.merge(historic[_KEYS], on=_KEYS, how="left", indicator=True)
    unknown = unknown.loc[unknown["_merge"] == "left_only", _KEYS].reset_index(drop=True)
    filled = future_covariates(historic, unknown, columns, method=method, season_of=season_of)
    is_ahead = filled["time_period"].isin(split.test_periods)
    if not is_ahead.all():
        historic = pd.concat([historic, filled[~is_ahead]], ignore_index=True)
        historic = historic.sort_values(["location", "time_period"], kind="stable").reset_index(drop=True)
    return historic, filled[is_ahead].reset_index(drop=True)


def describe_known(known: pd.DataFrame, final: pd.DataFrame, split: Split, *, target: str, known_by: str) -> Known:
    """How much of the truth was known when a forecast was made.

    Args:
        known: A row per place and period that was known then.
        final: The same as it is known now.
    """
    pairs = split.training(known)[[*_KEYS, target]].merge(
        final[[*_KEYS, target]], on=_KEYS, how="left", suffixes=("_then", "_now")
    )
    pairs = pairs[pairs[f"{target}_then"].notna()]
    then, now = (pairs[f"{target}_{when}"].to_numpy(dtype="float64") for when in ("then", "now"))
    last = (pairs["time_period"] == split.origin).to_numpy()
    total = float(np.nansum(now[last]))
    return Known(
        origin=split.origin,
        known_by=known_by,
        places=int(pairs["location"].nunique()),
        reported=int(last.sum()),
        completeness=float(then[last].sum()) / total if total else None,
        revised=float((then != now).mean()) if len(pairs) else 0.0,
    )


def optimism_of(
    vintages: pd.DataFrame, revised: pd.DataFrame, metrics: Sequence[str] = OPTIMISM_METRICS
) -> dict[str, ModelComparison]:
    """How much better a model looks on revised data, by metric, on the rows that both have scores for.

    In each row `mean` is that on revised data, `reference_mean` that on vintages; `skill` is the optimism:
    1 - mean / reference_mean, so that 0.1 says that revised data promise a score a tenth better than one gets.

    Args:
        vintages: Scores of forecasts from what was known at their origins.
        revised: Scores of forecasts from what is known now, of the same folds and with the same truth.
        metrics: Of which less is better.

    Raises:
        EvaluationError: They have no scored row in common.
    """
    both = {"revised": revised, "vintages": vintages}
    known = [name for name in metrics if name in vintages.columns and name in revised.columns]
    return {name: compare(both, name, reference="vintages").rows[0] for name in known}


def describe_plan(plan: Mapping[str, Any]) -> str:
    """In sentences: what a forecast knew, and what it was scored with.

    Args:
        plan: `delay_days` and `truth_lag_days`.
    """
    delay, lag = plan["delay_days"], plan["truth_lag_days"]
    then = f"{_days(delay)} after the last day of its origin" if delay else "on the last day of its origin"
    truth = "what is known now" if lag is None else f"what was known {_days(lag)} after the last day of a period"
    return f"Each forecast used only what was known {then}. The truth is {truth}."


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


def optimism_table(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the rows of a table for people: scores as known then and now, and the optimism.

    Args:
        rows: The attributes of `ModelComparison` and `metric`, as JSON values.
    """
    head = ("Metric", "As known then", "Revised data", "Difference", "95 % interval", "Optimism", "p")
    titles = {metric.name: metric.title for metric in METRICS}
    return head, [
        (
            titles.get(row["metric"], row["metric"]),
            f"{row['reference_mean']:.4g}",
            f"{row['mean']:.4g}",
            f"{row['difference']:+.3g}",
            "" if row["low"] is None else f"{row['low']:+.3g} to {row['high']:+.3g}",
            "" if row["skill"] is None else f"{row['skill']:+.1%}",
            row["note"] if row["p_value"] is None else f"{row['p_value']:.2g}",
        )
        for row in rows
    ]


def known_table(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head and the rows of a table for people: what was known at each origin.

    Args:
        rows: The attributes of `Known`, as JSON values.
    """
    head = ("Origin", "Known by", "Origin reported by", "Its value then, of that now", "Values revised since")
    return head, [
        (
            row["origin"],
            row["known_by"],
            f"{row['reported']} of {row['places']} places",
            "" if row["completeness"] is None else f"{row['completeness']:.0%}",
            f"{row['revised']:.1%}",
        )
        for row in rows
    ]
