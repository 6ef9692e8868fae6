"""The folds of one or many configs, all given to the flow's task runner at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from chapkit_flows.artifacts.codecs import Saved
from chapkit_flows.artifacts.store import Store
from chapkit_flows.errors import ChapkitFlowsError
from chapkit_flows.evaluation.splits import Strategy
from chapkit_flows.flows.fan_out import Fan, fan_out
from chapkit_flows.flows.folds import (
    FoldForecast,
    FoldOrder,
    check_kept,
    find_fit,
    find_forecast,
    fit_for_folds,
    forecast_fold,
)
from chapkit_flows.flows.runners import is_here

Folds: TypeAlias = Fan[FoldOrder, FoldForecast]
"""The folds of one config, on their way."""

Trained: TypeAlias = Saved | ChapkitFlowsError | None


def begin_folds(store: Store, groups: Sequence[Sequence[FoldOrder]], strategy: Strategy) -> list[Folds]:
    """Submit the folds of some configs to the task runner, without waiting for their forecasts.

    What is done already costs no task. Where a model is trained once, or gone on with, all configs are trained at the
    same time, and each fold follows as soon as its model is there.
    """
    check = None if is_here() else partial(check_kept, store)
    begun: list[Folds] = [Fan(forecast_fold, lambda order: find_forecast(store, order), check) for _ in groups]
    if strategy == "refit":
        for folds, orders in zip(begun, groups, strict=True):
            for order in orders:
                folds.add(order)
        return begun
    trained: Sequence[Trained] = [None] * len(groups)
    for number in range(max(map(len, groups), default=0)):
        orders_now = [orders[number] for orders in groups]
        if number == 0 or strategy == "update":
            trained = _train(store, orders_now, trained, _known(groups[0], number))
        for folds, order, model in zip(begun, orders_now, trained, strict=True):
            folds.add(model if isinstance(model, ChapkitFlowsError) else replace(order, trained=model))
    return begun


def _known(orders: Sequence[FoldOrder], number: int) -> frozenset[str]:
    """The periods that a model has learnt from before a split."""
    return frozenset(period for order in orders[:number] for period in order.split.train_periods)


def _train(
    store: Store, orders: Sequence[FoldOrder], trained: Sequence[Trained], known: frozenset[str]
) -> Sequence[Trained]:
    """The models of all configs for one split: trained, or gone on with from those of the split before."""
    fits: list[FoldOrder | ChapkitFlowsError] = []
    for order, model in zip(orders, trained, strict=True):
        new = tuple(period for period in order.split.train_periods if period not in known)
        fits.append(model if isinstance(model, ChapkitFlowsError) else replace(order, learn=new, trained=model))
    made: list[Saved | ChapkitFlowsError] = fan_out(fit_for_folds, fits, lambda fit: find_fit(store, fit))
    return made
