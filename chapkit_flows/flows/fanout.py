"""The folds of one or many configs, all given to the flow's task runner at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefect.futures import PrefectFuture

from chapkit_flows.artifacts.codecs import Saved
from chapkit_flows.artifacts.store import Store
from chapkit_flows.errors import BacktestFailed, ChapkitFlowsError
from chapkit_flows.evaluation.splits import Strategy
from chapkit_flows.flows.folds import (
    FoldForecast,
    FoldOrder,
    find_fit,
    find_forecast,
    fit_for_folds,
    forecast_fold,
)

Begun = PrefectFuture[Any] | FoldForecast | ChapkitFlowsError
"""A fold that is being done, was done before, or cannot be done."""


def begin_folds(store: Store, groups: Sequence[Sequence[FoldOrder]], strategy: Strategy) -> list[list[Begun]]:
    """Submit the folds of some configs to the task runner, without waiting for their forecasts.

    What is done already costs no task. Where a model is trained once, or gone on with, all configs are trained at the
    same time, and each fold follows as soon as its model is there.
    """
    if strategy == "refit":
        return [[_begin(store, order) for order in orders] for orders in groups]
    begun: list[list[Begun]] = [[] for _ in groups]
    trained: list[Saved | ChapkitFlowsError | None] = [None] * len(groups)
    for number in range(max(map(len, groups), default=0)):
        if number == 0 or strategy == "update":
            trained = _train(store, [orders[number] for orders in groups], trained, _known(groups[0], number))
        for orders, model, some in zip(groups, trained, begun, strict=True):
            failed = isinstance(model, ChapkitFlowsError)
            some.append(model if failed else _begin(store, replace(orders[number], trained=model)))  # type: ignore[arg-type]
    return begun


def await_folds(begun: Sequence[Begun]) -> list[FoldForecast | ChapkitFlowsError]:
    """Wait for the folds of one config; a fold that fails is an error in its place."""
    return [_outcome(one) if isinstance(one, PrefectFuture) else one for one in begun]


def _begin(store: Store, order: FoldOrder) -> Begun:
    return find_forecast(store, order) or forecast_fold.submit(order)


def _known(orders: Sequence[FoldOrder], number: int) -> frozenset[str]:
    """The periods that a model has learnt from before a split."""
    return frozenset(period for order in orders[:number] for period in order.split.train_periods)


def _train(
    store: Store,
    orders: Sequence[FoldOrder],
    trained: Sequence[Saved | ChapkitFlowsError | None],
    known: frozenset[str],
) -> list[Saved | ChapkitFlowsError | None]:
    """The models of all configs for one split: trained, or gone on with from those of the split before."""
    begun: list[Any] = []
    for order, model in zip(orders, trained, strict=True):
        if isinstance(model, ChapkitFlowsError):
            begun.append(model)
            continue
        new = tuple(period for period in order.split.train_periods if period not in known)
        fit = replace(order, learn=new, trained=model)
        begun.append(find_fit(store, fit) or fit_for_folds.submit(fit))
    return [_outcome(one) if isinstance(one, PrefectFuture) else one for one in begun]


def _outcome(future: PrefectFuture[Any]) -> Any:
    result = future.result(raise_on_failure=False)
    if isinstance(result, BaseException) and not isinstance(result, ChapkitFlowsError):
        return BacktestFailed(f"{type(result).__name__}: {result}")
    return result
