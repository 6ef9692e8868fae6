"""Rolling origins: which periods a model learns from, and which it must then forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from chapkit_flows.errors import EvaluationError, TooFewPeriods
from chapkit_flows.refs import Diagnostic

Window = Literal["expanding", "sliding"]
Strategy = Literal["refit", "train_once", "update"]
"""How a model meets the next split: trained anew on its training periods; trained once, on those of the first
split, and given the rest as historic data; or trained on those of the first and updated with what came since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """How to cut a panel into splits.

    Attributes:
        n_periods: How many periods ahead each split forecasts.
        n_splits: How many origins; the last one forecasts the last periods of the panel.
        stride: Periods from one origin to the next. Below `n_periods`, a period is forecast by several splits.
        window: Whether a split learns from all periods up to its origin, or from the last `window_length`.
        window_length: Periods of a sliding window; of an expanding one the fewest that the first split may have.
    """

    n_periods: int = 3
    n_splits: int = 4
    stride: int = 1
    window: Window = "expanding"
    window_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("n_periods", "n_splits", "stride", "window_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvaluationError(f"{name} is {value}; write a whole number from 1 up.")
        if self.window not in get_args(Window):
            raise EvaluationError(f"window is {self.window!r}; write expanding or sliding.")
        if self.window == "sliding" and self.window_length is None:
            raise EvaluationError("A sliding window needs its length: write window_length, in periods.")

    @property
    def periods_needed(self) -> int:
        """The fewest periods that a panel must have."""
        return (self.window_length or 1) + (self.n_splits - 1) * self.stride + self.n_periods


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One origin of a backtest.

    Attributes:
        number: From 0, in order of time.
        origin: The last period that is known when the forecast is made.
        train_periods: The periods to learn from, in order of time; the last is `origin`.
        test_periods: The periods to forecast; the first has horizon 1.
    """

    number: int
    origin: str
    train_periods: tuple[str, ...]
    test_periods: tuple[str, ...]

    def training(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that the model may learn from."""
        return frame[frame["time_period"].isin(self.train_periods)].reset_index(drop=True)

    def testing(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table that it must forecast, with their truth."""
        return frame[frame["time_period"].isin(self.test_periods)].reset_index(drop=True)


def rolling_origins(periods: Sequence[str], plan: SplitPlan) -> tuple[Split, ...]:
    """Cut the periods of a panel into splits, the earliest origin first.

    Args:
        periods: The panel's distinct periods, in order of time and without gaps.
        plan: How to cut.

    Raises:
        TooFewPeriods: There are fewer periods than the plan needs.
        EvaluationError: The periods are not in order, or repeat.
    """
    if list(periods) != sorted(set(periods)):
        raise EvaluationError("The periods of the panel must be distinct and in order of time.")
    if len(periods) < plan.periods_needed:
        least = f"{plan.window_length or 1} to learn from"
        raise TooFewPeriods(
            f"The panel has {len(periods)} periods, but {plan.n_splits} splits of {plan.n_periods} periods ahead with "
            f"stride {plan.stride} need {plan.periods_needed} ({least}). Ask for fewer, or bring more data."
        )
    first = len(periods) - plan.n_periods - (plan.n_splits - 1) * plan.stride
    return tuple(_split(periods, number, first + number * plan.stride, plan) for number in range(plan.n_splits))


def _split(periods: Sequence[str], number: int, known: int, plan: SplitPlan) -> Split:
    start = known - (plan.window_length or 0) if plan.window == "sliding" else 0
    return Split(
        number=number,
        origin=periods[known - 1],
        train_periods=tuple(periods[start:known]),
        test_periods=tuple(periods[known : known + plan.n_periods]),
    )


def check_truth(frame: pd.DataFrame, splits: Sequence[Split], *, target: str) -> tuple[Diagnostic, ...]:
    """Say where the truth is missing that the splits are to be scored with.

    Returns:
        Errors if the target is nowhere known (`target_all_missing`), or not in any period that is forecast
        (`no_truth`), or at no time in a place (`place_without_truth`); a warning for the places that lack it
        in all forecast periods of some split (`split_without_truth`): those cannot be scored, and are counted.
    """
    if target not in frame.columns or frame[target].isna().all():
        message = f"The target {target!r} has no value in any row, so nothing can be scored. Fill it in."
        return (Diagnostic.error("target_all_missing", message, f"data.{target}"),)
    known = frame[frame[target].notna()]
    tested = {period for split in splits for period in split.test_periods}
    if not known["time_period"].isin(tested).any():
        message = (
            f"The target {target!r} has no value from {min(tested)} to {max(tested)}, the periods that are forecast. "
            "Leave the last periods off the table, or fill them in."
        )
        return (Diagnostic.error("no_truth", message, f"data.{target}"),)
    findings = []
    places = set(frame["location"])
    if never := sorted(places - set(known["location"])):
        message = f"{_named(never)} without any value of {target!r}. Leave the place out, or fill it in."
        findings.append(Diagnostic.error("place_without_truth", message, f"data.{target}"))
    for split in splits:
        seen = set(known.loc[known["time_period"].isin(split.test_periods), "location"])
        if lacking := sorted(places - seen - set(never)):
            message = (
                f"{_named(lacking)} without a value of {target!r} in {split.test_periods[0]} to "
                f"{split.test_periods[-1]} (split {split.number}): not scored there."
            )
            findings.append(Diagnostic.warning("split_without_truth", message, f"data.{target}"))
    return tuple(findings)


def _named(places: Sequence[str]) -> str:
    shown = ", ".join(places[:3]) + (", …" if len(places) > 3 else "")
    return f"{len(places)} {'place' if len(places) == 1 else 'places'} ({shown})"
