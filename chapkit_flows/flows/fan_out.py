"""Many tasks of one kind, each in whatever process: what is done already is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from prefect import Task
from prefect.context import SyncClientContext
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from chapkit_flows.errors import ChapkitFlowsError, WorkerLost
from chapkit_flows.flows.runners import outcome_of, renew_workers

Order = TypeVar("Order")
Done = TypeVar("Done")


def fan_out(
    task: Task[[Order], Done], orders: Iterable[Order | ChapkitFlowsError], find: Callable[[Order], Done | None]
) -> list[Done | ChapkitFlowsError]:
    """Have each order done by the flow's task runner. Blocks, as task runners do.

    A killed process breaks the pool that it belongs to: what was lost with it is submitted again, then one by one, so
    that an order which kills its process takes no other with it.

    Args:
        task: Does one order.
        orders: An error in the place of one stays there.
        find: What was done before, which costs no task.

    Returns:
        By order what the task returned, or why it did not.
    """
    # Each task makes two clients unless there is one: nine tenths of what Prefect costs a task.
    with SyncClientContext.get_or_create():
        return _do_all(task, orders, find)


def _do_all(
    task: Task[[Order], Done], orders: Iterable[Order | ChapkitFlowsError], find: Callable[[Order], Done | None]
) -> list[Done | ChapkitFlowsError]:
    kept: list[Order | ChapkitFlowsError] = []
    begun: list[Any] = []
    for order in orders:
        kept.append(order)
        begun.append(order if isinstance(order, ChapkitFlowsError) else find(order) or task.submit(order))
    done = _wait(begun)
    for one_by_one in (False, True):
        lost = [place for place, one in enumerate(done) if isinstance(one, WorkerLost) and one.with_others]
        for places in [[place] for place in lost] if one_by_one else [lost] if lost else []:
            _again(task, kept, done, places)
    return done


def do_one(task: Task[[Order], Done], order: Order) -> Done | ChapkitFlowsError:
    """Have one order done, and wait for it."""
    (done,) = fan_out(task, [order], lambda _: None)
    return done


def _again(task: Task[[Any], Any], orders: Sequence[Any], done: list[Any], places: Sequence[int]) -> None:
    get_run_logger().warning("A process was killed; %d task(s) that were lost with it are done again", len(places))
    renew_workers()
    for place, one in zip(places, _wait([task.submit(orders[place]) for place in places]), strict=True):
        done[place] = one


def _wait(begun: Sequence[Any]) -> list[Any]:
    return [outcome_of(one) if isinstance(one, PrefectFuture) else one for one in begun]
