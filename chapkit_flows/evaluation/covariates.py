"""The covariates of the periods ahead, as they can be known when a forecast is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import pandas as pd

from chapkit_flows.errors import EvaluationError

FutureCovariates = Literal["observed", "climatology", "persistence"]
"""What stands for the weather ahead: what was observed later (optimistic: no forecast can have it), the mean of its
place and season in the past, or the last value known."""

_KEYS = ["time_period", "location"]


def future_covariates(
    historic: pd.DataFrame,
    ahead: pd.DataFrame,
    columns: Sequence[str],
    *,
    method: FutureCovariates = "climatology",
    season_of: Callable[[str], int],
) -> pd.DataFrame:
    """The rows to forecast, with their covariates.

    A season that the place has not seen gets the mean over all its seasons; a place that is not in `historic`
    gets the means over all places. What no row of `historic` knows stays missing.

    Args:
        historic: The rows up to the origin: nothing else is looked at, unless `method` is `observed`.
        ahead: The rows of the periods to forecast.
        columns: The covariates to fill.
        method: What stands for them.
        season_of: The position of a period in its year, such as 1 to 12 for a month.

    Returns:
        `time_period`, `location` and `columns`, in the order of `ahead`; no target and nothing else of `ahead`.
    """
    if method not in get_args(FutureCovariates):
        raise EvaluationError(f"covariates is {method!r}; write one of {', '.join(get_args(FutureCovariates))}.")
    if method == "observed":
        return ahead[[*_KEYS, *columns]].reset_index(drop=True)
    keys = ahead[_KEYS].reset_index(drop=True)
    if method == "persistence":
        return keys.assign(**{name: _last_values(historic, keys, name) for name in columns})
    seasons = historic["time_period"].map(season_of), keys["time_period"].map(season_of)
    return keys.assign(**{name: _seasonal_means(historic, keys, name, seasons) for name in columns})


def _last_values(historic: pd.DataFrame, keys: pd.DataFrame, name: str) -> pd.Series[Any]:
    known = historic[historic[name].notna()].sort_values("time_period")
    last = known.groupby("location")[name].last()
    return keys["location"].map(last).astype("float64").fillna(last.mean())


def _seasonal_means(
    historic: pd.DataFrame, keys: pd.DataFrame, name: str, seasons: tuple[pd.Series[int], pd.Series[int]]
) -> pd.Series[Any]:
    past, wanted = seasons
    places, values = historic["location"], historic[name].astype("float64")
    by_both = values.groupby([places, past]).mean()
    found = pd.Series(by_both.reindex(pd.MultiIndex.from_arrays([keys["location"], wanted])).to_numpy())
    for means, key in (
        (values.groupby(places).mean(), keys["location"]),
        (values.groupby(past).mean(), wanted),
    ):
        found = found.fillna(key.map(means).astype("float64"))
    return found.fillna(values.mean())
