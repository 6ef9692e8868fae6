"""Scores of forecasts as rows per fold, place and horizon, and their means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chapkit_flows.errors import EvaluationError, UnscorableForecast
from chapkit_flows.evaluation.metrics import METRICS, Forecasts, Metric, Numbers
from chapkit_flows.evaluation.splits import Split
from chapkit_flows.refs import digest_of

KEYS = ["origin", "location", "time_period"]
"""The columns that name a scored row: two models are compared where these are equal."""

_ROW = ["time_period", "location"]
_SAMPLE = re.compile(r"sample_\d+")
_BLOCK = 2_000_000  # samples that are scored at once: 16 MB, and a few times that for what is computed from them
_LEAST_PAST = 3  # values of a place and season below which a percentile of them says nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Yardstick:
    """What the training data of a fold says about the size of its values.

    Attributes:
        scale: By place: the mean absolute change from one period to the next.
        threshold: By place and season: the value above which there is an outbreak.
        season_of: The position of a period in its year.
    """

    scale: pd.Series[float]
    threshold: pd.Series[float]
    season_of: Callable[[str], int]


def learn_yardstick(
    training: pd.DataFrame, *, target: str, season_of: Callable[[str], int], percentile: float = 0.75
) -> Yardstick:
    """Learn from training data how large a place's errors and outbreaks are; of what comes later it knows nothing.

    The outbreak threshold is a percentile of the values of the same place and season: with 0.75 the upper limit of
    an endemic channel (Bortman 1999, Revista Panamericana de Salud Pública 5, 1-8). A place and season with fewer
    than three past values has none.
    """
    known = training[training[target].notna()].sort_values([*reversed(_ROW)])
    values = known[target].astype("float64")
    changes = values.groupby(known["location"]).diff().abs()
    past = values.groupby([known["location"], _seasons(known["time_period"], season_of)])
    thresholds = past.quantile(percentile)
    return Yardstick(
        scale=changes.groupby(known["location"]).mean(),
        threshold=thresholds.where(past.count() >= _LEAST_PAST),
        season_of=season_of,
    )


def score_split(
    predictions: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    target: str,
    split: Split,
    yardstick: Yardstick | None = None,
    metrics: Sequence[Metric] = METRICS,
) -> pd.DataFrame:
    """Score the forecasts of one fold.

    Args:
        predictions: `time_period`, `location`, then `sample_0` … or `prediction`, of periods of the split.
        truth: `time_period`, `location` and the target, at least of those periods; other rows are ignored.
        target: The column of the truth.
        split: The fold.
        yardstick: Of the fold's training data; without it the normalised CRPS and the scores of outbreaks are not
            defined.
        metrics: What to compute.

    Returns:
        A row per place and period that was forecast or has a truth: `fold`, `origin`, `location`, `time_period`,
        `horizon` (1 for the first period ahead), `excluded` (`missing_truth`, `missing_forecast`, or empty), then a
        column per metric, which is not a number in excluded rows and where the metric is not defined.

    Raises:
        UnscorableForecast: A column is missing, a row is repeated, a sample or a truth is infinite, a sample is
            missing, or a forecast is of a place that the truth does not have or a period that the split does not.
    """
    columns = _check_predictions(predictions, truth, split)
    if target not in truth.columns:
        raise UnscorableForecast(f"The truth has no column {target!r}, so nothing can be scored. Add it.")
    known = split.testing(truth)[[*_ROW, target]]
    _check_keys(known, "truth")
    if np.isinf(known[target].to_numpy(dtype="float64")).any():
        raise UnscorableForecast(f"The truth has infinite values of {target!r}. Correct or empty them.")
    given = predictions[_ROW].assign(_row=np.arange(len(predictions)))
    table = given.merge(known.rename(columns={target: "_truth"}), on=_ROW, how="outer", sort=False)
    table = table[table["_row"].notna() | table["_truth"].notna()]
    table = _with_fold(table, split)
    scored = table["excluded"].eq("").to_numpy()
    rows = table.loc[scored, "_row"].to_numpy(dtype="int64")
    values = _score_rows(
        predictions[columns], rows, table.loc[scored, "_truth"].to_numpy(dtype="float64"), table[scored], yardstick,
        metrics,
    )  # fmt: skip
    filled = np.full((len(table), len(values)), np.nan)
    filled[scored] = np.column_stack(list(values.values()))
    measured = pd.DataFrame(filled, columns=list(values), index=table.index)
    return pd.concat([table.drop(columns=["_row", "_truth"]), measured], axis=1)


def _with_fold(table: pd.DataFrame, split: Split) -> pd.DataFrame:
    horizons = {period: number for number, period in enumerate(split.test_periods, start=1)}
    excluded = np.select(
        [table["_truth"].isna(), table["_row"].isna()], ["missing_truth", "missing_forecast"], default=""
    )
    table = table.assign(
        fold=split.number,
        origin=split.origin,
        horizon=table["time_period"].map(horizons).astype("int64"),
        excluded=excluded,
    )
    order = ["fold", "origin", "location", "time_period", "horizon", "excluded", "_row", "_truth"]
    return table[order].sort_values(["location", "horizon"]).reset_index(drop=True)


def _check_predictions(predictions: pd.DataFrame, truth: pd.DataFrame, split: Split) -> list[str]:
    missing = [name for name in _ROW if name not in predictions.columns]
    columns = [str(name) for name in predictions.columns if _SAMPLE.fullmatch(str(name))]
    if not columns and "prediction" in predictions.columns:
        columns = ["prediction"]
    if missing or not columns:
        lacking = ", ".join(missing) or "sample_0 … or prediction"
        raise UnscorableForecast(f"The forecasts have no column {lacking}. They need a row per place and period.")
    _check_keys(predictions, "forecasts")
    if strange := sorted(set(predictions["location"].unique()) - set(truth["location"].unique())):
        raise UnscorableForecast(
            f"The forecasts are of places that the truth does not have: {', '.join(map(str, strange[:3]))}"
            f"{' …' if len(strange) > 3 else ''} ({len(strange)} of {predictions['location'].nunique()}). "
            "Give the truth of the same places."
        )
    if outside := sorted(set(predictions["time_period"].unique()) - set(split.test_periods)):
        raise UnscorableForecast(
            f"The forecasts are of periods that split {split.number} does not test: {', '.join(outside[:3])}. It "
            f"tests {split.test_periods[0]} to {split.test_periods[-1]}."
        )
    return columns


def _check_keys(frame: pd.DataFrame, what: str) -> None:
    if (repeated := frame[_ROW].duplicated()).any():
        row = frame[repeated].iloc[0]
        raise UnscorableForecast(
            f"The {what} have {int(repeated.sum())} rows too many, such as a second one for {row['location']} in "
            f"{row['time_period']}. Keep one row per place and period."
        )


def _score_rows(
    samples: pd.DataFrame,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    truth: Numbers,
    keys: pd.DataFrame,
    yardstick: Yardstick | None,
    metrics: Sequence[Metric],
) -> dict[str, Numbers]:
    _check_finite(samples, keys, rows)
    scale, threshold = _measure(keys, yardstick)
    step = max(1, _BLOCK // samples.shape[1])
    blocks = []
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        forecasts = Forecasts(
            samples=np.sort(samples.iloc[rows[part]].to_numpy(dtype="float64"), axis=1),
            truth=truth[part],
            scale=scale[part],
            threshold=threshold[part],
        )
        blocks.append({metric.name: metric.function(forecasts) for metric in metrics})
    if not blocks:
        return {metric.name: np.array([]) for metric in metrics}
    return {metric.name: np.concatenate([block[metric.name] for block in blocks]) for metric in metrics}


def _check_finite(samples: pd.DataFrame, keys: pd.DataFrame, rows: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    broken = np.flatnonzero(~np.isfinite(samples.to_numpy(dtype="float64")).all(axis=1))
    if len(broken):
        named = keys[np.isin(rows, broken)]
        example = f", such as {named.iloc[0]['location']} in {named.iloc[0]['time_period']}" if len(named) else ""
        raise UnscorableForecast(
            f"{len(broken)} of {len(samples)} forecasts have samples that are missing or infinite{example}. "
            "Give finite numbers."
        )


def _measure(keys: pd.DataFrame, yardstick: Yardstick | None) -> tuple[Numbers, Numbers]:
    if yardstick is None:
        unknown: Numbers = np.full(len(keys), np.nan)
        return unknown, unknown
    scale = np.asarray(yardstick.scale.reindex(keys["location"]), dtype=np.float64)
    wanted = pd.MultiIndex.from_arrays([keys["location"], _seasons(keys["time_period"], yardstick.season_of)])
    threshold = np.asarray(yardstick.threshold.reindex(wanted), dtype=np.float64)
    return scale, threshold


def _seasons(periods: pd.Series[str], season_of: Callable[[str], int]) -> pd.Series[int]:
    codes, texts = pd.factorize(periods)
    return pd.Series(np.array([season_of(text) for text in texts], dtype="int64")[codes], index=periods.index)


def summarise(scores: pd.DataFrame, by: Sequence[str] = (), *, metrics: Sequence[Metric] = METRICS) -> pd.DataFrame:
    """Put scored rows together: overall, or by `horizon`, `location`, `fold`, …

    Args:
        scores: As `score_split` returns them, of one fold or several below each other.
        by: The columns that name a group; none for one mean over all rows.
        metrics: Those to summarise that `scores` has.

    Returns:
        The columns of `by`, then `metric`, `value`, `n` (rows that count) and `n_excluded` (rows without truth or
        forecast, or where the metric is not defined); `value` is not a number where no row counts.
    """
    if unknown := [name for name in by if name not in scores.columns]:
        raise EvaluationError(f"The scores have no column {unknown[0]!r} to group by.")
    groups = [scores[name] for name in by] or [pd.Series(0, index=scores.index, name="_all")]
    tables = []
    for metric in (each for each in metrics if each.name in scores.columns):
        values = scores[metric.name]
        grouped = (values**2 if metric.summary == "root_mean_square" else values).groupby(groups)
        mean, count = grouped.mean(), grouped.count()
        value = mean**0.5 if metric.summary == "root_mean_square" else mean
        facts = {"metric": metric.name, "value": value, "n": count, "n_excluded": grouped.size() - count}
        tables.append(pd.DataFrame(facts).reset_index())
    if not tables:
        raise EvaluationError("The scores have no column of a metric. Score forecasts with score_split first.")
    return pd.concat(tables, ignore_index=True)[[*by, "metric", "value", "n", "n_excluded"]]


def fingerprint(rows: pd.DataFrame) -> str:
    """Equal rows in the same order have an equal one; a few letters, as it may be kept for each of many tables."""
    hashes = pd.util.hash_pandas_object(rows.reset_index(drop=True), index=False)
    return digest_of(hashes.to_numpy().tobytes()).removeprefix("sha256:")[:16]
