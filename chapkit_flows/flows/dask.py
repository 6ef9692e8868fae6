"""Folds on a Dask cluster. Needs the extra `dask`."""

from __future__ import annotations

from typing import Any, Self

from distributed import WorkerPlugin
from prefect_dask.client import PrefectDaskClient
from prefect_dask.task_runners import DaskTaskRunner

from chapkit_flows.errors import InvalidSetting
from chapkit_flows.models.discovery import load_model

_SECONDS = 20


class ModelDaskTaskRunner(DaskTaskRunner):
    """Prefect's own, whose workers import the file of a model before they are given a fold.

    What a worker is sent names classes that stand in that file, under a name which only this package gives to it.
    """

    entrypoint: str | None = None

    @property
    def client(self) -> PrefectDaskClient:
        """The client of the cluster, made on first use.

        Raises:
            InvalidSetting: The cluster does not answer.
        """
        if self._client is not None:
            return self._client
        try:
            client = super().client
        except OSError as error:
            raise InvalidSetting(
                f"The Dask cluster at cluster_address {self.address} does not answer: {error}. Start its scheduler, or "
                "correct the address."
            ) from error
        if self.entrypoint is not None:
            client.register_plugin(ImportModel(self.entrypoint))
        return client

    def duplicate(self) -> Self:
        """A new one with the same settings."""
        copy: Self = super().duplicate()  # type: ignore[no-untyped-call]  # prefect-dask does not annotate it
        copy.entrypoint = self.entrypoint
        return copy


class ImportModel(WorkerPlugin):
    """Import the file of a model on each worker, also on those that join later."""

    def __init__(self, entrypoint: str) -> None:
        self.name = f"import {entrypoint}"
        self._entrypoint = entrypoint

    def setup(self, worker: Any) -> None:
        """Called on each worker."""
        load_model(self._entrypoint)


def make_dask_runner(entrypoint: str | None, *, address: str | None, workers: int) -> ModelDaskTaskRunner:
    """A runner on the cluster at an address, or on one of its own, of so many processes, that ends with the flow."""
    if address:
        runner = ModelDaskTaskRunner(address=address, client_kwargs={"timeout": _SECONDS})
    else:
        own = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        runner = ModelDaskTaskRunner(cluster_kwargs=own)
    runner.entrypoint = entrypoint
    return runner
