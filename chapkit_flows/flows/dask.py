"""Folds on a Dask cluster. Needs the extra `dask`."""

from __future__ import annotations

from typing import Any, Self

from distributed import WorkerPlugin
from prefect.logging import get_logger
from prefect.tasks import Task
from prefect_dask.client import PrefectDaskClient
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from chapkit_flows.errors import InvalidSetting
from chapkit_flows.flows.sending import sent_as_reference
from chapkit_flows.models.hints import ResourceHints

ANSWER_SECONDS = 10
"""A scheduler that has not answered within this time is told to be away."""


class HintedDaskTaskRunner(DaskTaskRunner):
    """Prefect's own, whose workers are asked for what a fold needs.

    Attributes:
        resources: What each task takes of the worker that does it.
    """

    resources: dict[str, float]

    @property
    def client(self) -> PrefectDaskClient:
        """The client of the cluster, made on first use.

        Raises:
            InvalidSetting: The cluster does not answer, or has workers, but none that offers enough.
        """
        if self._client is not None:
            return self._client
        try:
            client = super().client
        except OSError as error:
            raise InvalidSetting(
                f"The Dask cluster at cluster_address {self.address} does not answer within {ANSWER_SECONDS} s: "
                f"{error}. Start its scheduler, or correct the address."
            ) from error
        if self.address:
            self._look_at_workers(client)
        return client

    def submit(  # type: ignore[override]  # prefect-dask narrows it too
        self, task: Task[..., Any], parameters: dict[str, Any], wait_for: Any = None, dependencies: Any = None
    ) -> PrefectDaskFuture[Any]:
        """As Prefect's, which asks a worker for nothing, with a reference to the flow run."""
        with sent_as_reference():
            future = self.client.submit(  # type: ignore[no-untyped-call]  # prefect-dask does not annotate it
                task,
                parameters=self._optimize_futures(parameters),
                wait_for=self._optimize_futures(wait_for) if wait_for else None,
                dependencies=dependencies,
                return_type="state",
                resources=self.resources or None,
            )
        return PrefectDaskFuture(wrapped_future=future, task_run_id=future.task_run_id)

    def duplicate(self) -> Self:
        """A new one with the same settings."""
        copy: Self = super().duplicate()  # type: ignore[no-untyped-call]  # prefect-dask does not annotate it
        copy.resources = self.resources
        return copy

    def _look_at_workers(self, client: PrefectDaskClient) -> None:
        """A task that no worker offers enough for would wait for ever."""
        if self.resources:
            client.register_plugin(OfferProcessors())
        workers = client.scheduler_info()["workers"]
        if not workers:
            get_logger().warning("The Dask cluster at %s has no worker yet: folds wait for one.", self.address)
            return
        offers = [worker["resources"] for worker in workers.values()]
        if not any(_is_enough(offer, self.resources) for offer in offers):
            raise InvalidSetting(
                f"No worker of the Dask cluster at {self.address} offers what a fold of the model needs: "
                f"{_describe(self.resources)}. Start one that does: dask worker … --resources "
                f'"{_describe(self.resources)}", or correct the resources of the model.'
            )


class OfferProcessors(WorkerPlugin):
    """Let each worker offer its threads and memory, also those that join later; what it was started with stays."""

    name = "chapkit-flows: offer processors"

    async def setup(self, worker: Any) -> None:
        """Called on each worker."""
        own = {"CPU": worker.state.nthreads, "MEMORY": worker.memory_manager.memory_limit or 0}
        await worker.set_resources(**(own | worker.state.total_resources))


def _is_enough(offer: dict[str, float], wanted: dict[str, float]) -> bool:
    return all(offer.get(name, 0) >= amount for name, amount in wanted.items())


def _describe(resources: dict[str, float]) -> str:
    return " ".join(f"{name}={amount:g}" for name, amount in resources.items())


def make_runner(*, address: str | None, workers: int, hints: ResourceHints) -> HintedDaskTaskRunner:
    """A runner on the cluster at an address, or on one of its own, of so many processes, that ends with the flow."""
    if address:
        runner = HintedDaskTaskRunner(address=address, client_kwargs={"timeout": ANSWER_SECONDS})
        wanted = {"CPU": hints.cpus, "MEMORY": float(hints.memory or 0), "GPU": hints.gpus}
        # A worker does as many tasks at once as it has threads: for one processor each nothing need be asked.
        runner.resources = {} if hints == ResourceHints() else {name: value for name, value in wanted.items() if value}
    else:
        own = {"n_workers": hints.at_once(workers), "threads_per_worker": 1, "dashboard_address": None}
        runner = HintedDaskTaskRunner(cluster_kwargs=own)
        runner.resources = {}
    return runner
