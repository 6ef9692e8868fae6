"""Folds on a Ray cluster. Needs the extra `ray`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Self

import grpc
import ray
from prefect.task_runners import TaskRunner
from prefect_ray.context import remote_options
from prefect_ray.task_runners import PrefectRayFuture, RayTaskRunner

from chapkit_flows.errors import InvalidSetting
from chapkit_flows.flows.sending import sent_as_reference
from chapkit_flows.models.hints import ResourceHints

ANSWER_SECONDS = 10
"""A cluster that has not answered within this time is told to be away."""

_CLIENT = "ray://"
_CLIENT_PORT = 10001
_QUIET = {"logging_level": logging.WARNING, "log_to_driver": False}


class HintedRayTaskRunner(RayTaskRunner):  # type: ignore[misc]  # prefect-ray has no types
    """Prefect's own, that joins the cluster when it is given its first task, and asks it for what a fold needs.

    Attributes:
        options: What Ray is asked for with each task.
    """

    options: Mapping[str, float]
    _owns_ray: bool

    def __enter__(self) -> Self:
        """Start without the cluster, which takes seconds: a backtest whose folds are all done needs none."""
        return TaskRunner.__enter__(self)

    def __exit__(self, *error: Any) -> None:
        """Leave the cluster; one that was started for this flow ends."""
        if self._owns_ray:
            self._owns_ray = False
            ray.shutdown()
        TaskRunner.__exit__(self, *error)

    def submit(self, *arguments: Any, **named: Any) -> PrefectRayFuture[Any]:
        """As Prefect's, with a reference to the flow run.

        Raises:
            InvalidSetting: The cluster does not answer, or no node of it has enough.
        """
        if not ray.is_initialized():
            self._join()
        with sent_as_reference(), remote_options(**self.options):
            future: PrefectRayFuture[Any] = super().submit(*arguments, **named)
            return future

    def duplicate(self) -> Self:
        """A new one with the same settings."""
        copy: Self = super().duplicate()
        copy.options = self.options
        return copy

    def _join(self) -> None:
        if self.address:
            _check_answer(self.address)
        try:
            # Without a word it would join a cluster that somebody else has started on this machine.
            ray.init(self.address or "local", **self.init_kwargs)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"The Ray cluster at {self.address}" if self.address else "A Ray cluster on this machine"
            token = " If it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN." if self.address else ""
            raise InvalidSetting(f"{where} cannot be used: {error}.{token}") from error
        self._owns_ray = True
        if not any(_is_enough(node, self.options) for node in ray.nodes()):  # type: ignore[no-untyped-call]
            raise InvalidSetting(
                f"No node of the Ray cluster at {self.address or 'this machine'} has what a fold of the model needs: "
                f"{', '.join(f'{name}={amount:g}' for name, amount in self.options.items())}. Start one that has, or "
                "correct the resources of the model."
            )


def _check_answer(address: str) -> None:
    """Ray itself tries for two minutes, and then ends the process.

    Raises:
        InvalidSetting: Nothing that speaks Ray's protocol answers in time.
    """
    place = address.removeprefix(_CLIENT)
    if ":" not in place:
        place = f"{place}:{_CLIENT_PORT}"
    with grpc.insecure_channel(place) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise InvalidSetting(
                f"The Ray cluster at cluster_address {address} does not answer within {ANSWER_SECONDS} s. Start its "
                "head node, or correct the address."
            ) from error


def _is_enough(node: Mapping[str, Any], options: Mapping[str, float]) -> bool:
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return bool(node["Alive"]) and all(
        node["Resources"].get(names[name], 0) >= amount for name, amount in options.items()
    )


def make_runner(*, address: str | None, workers: int, hints: ResourceHints) -> HintedRayTaskRunner:
    """A runner on the cluster at an address, or on one of its own, of so many processors, that ends with the flow."""
    own = {} if address else {"num_cpus": max(workers, int(hints.cpus)), "include_dashboard": False}
    runner = HintedRayTaskRunner(address=address or None, init_kwargs={**_QUIET, **own})
    wanted = {"num_cpus": hints.cpus, "num_gpus": hints.gpus, "memory": float(hints.memory or 0)}
    runner.options = {name: amount for name, amount in wanted.items() if amount}
    return runner
