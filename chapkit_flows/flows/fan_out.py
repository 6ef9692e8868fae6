"""Many tasks of one kind, each in whatever process: what is done already is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from chapkit_flows.errors import ChapkitFlowsError, WorkerLost
from chapkit_flows.flows.runners import outcome_of, renew_workers

Order = TypeVar("Order")
Done = TypeVar("Done")


class Fan(Generic[Order, Done]):
    """Orders that are given to the flow's task runner one after the other, and waited for together.

    A killed process breaks the pool that it belongs to: what was lost with it is submitted again, then one by one, so
    that an order which kills its process takes no other with it.
    """

    def __init__(
        self,
        task: Task[[Order], Done],
        find: Callable[[Order], Done | None],
        check: Callable[[Done], Done | ChapkitFlowsError] | None = None,
    ) -> None:
        """Nothing is ordered yet.

        Args:
            task: Does one order.
            find: What was done before, which costs no task.
            check: Looks at what a task returned.
        """
        self._task, self._find, self._check = task, find, check
        self._orders: list[Order | ChapkitFlowsError] = []
        self._begun: list[Any] = []

    def add(self, order: Order | ChapkitFlowsError) -> None:
        """Submit an order, unless it was done before; an error in the place of one stays there."""
        self._orders.append(order)
        is_error = isinstance(order, ChapkitFlowsError)
        self._begun.append(order if is_error else self._find(order) or self._task.submit(order))  # type: ignore[arg-type]

    def finish(self) -> list[Done | ChapkitFlowsError]:
        """By order what the task returned, or why it did not. Blocks, as task runners do."""
        done = _wait(self._begun)
        for one_by_one in (False, True):
            lost = [place for place, one in enumerate(done) if isinstance(one, WorkerLost) and one.with_others]
            for places in [[place] for place in lost] if one_by_one else [lost] if lost else []:
                _again(self._task, self._orders, done, places)
        check = self._check
        return done if check is None else [one if isinstance(one, ChapkitFlowsError) else check(one) for one in done]


def fan_out(
    task: Task[[Order], Done], orders: Iterable[Order | ChapkitFlowsError], find: Callable[[Order], Done | None]
) -> list[Done | ChapkitFlowsError]:
    """Have each order done by the flow's task runner, as `Fan` does."""
    fan = Fan(task, find)
    for order in orders:
        fan.add(order)
    return fan.finish()


def _again(task: Task[[Any], Any], orders: Sequence[Any], done: list[Any], places: Sequence[int]) -> None:
    get_run_logger().warning("A process was killed; %d task(s) that were lost with it are done again", len(places))
    renew_workers()
    for place, one in zip(places, _wait([task.submit(orders[place]) for place in places]), strict=True):
        done[place] = one


def _wait(begun: Sequence[Any]) -> list[Any]:
    return [outcome_of(one) if isinstance(one, PrefectFuture) else one for one in begun]
