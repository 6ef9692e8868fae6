"""Where the folds of a backtest run: threads, processes, or a Dask cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from chapkit_flows.errors import InvalidSetting
from chapkit_flows.models.discovery import load_model
from chapkit_flows.settings import ChapkitFlowsSettings


def make_task_runner(entrypoint: str | None, settings: ChapkitFlowsSettings | None = None) -> TaskRunner[Any]:
    """The task runner that the settings name.

    Args:
        entrypoint: Of the model, whose file each other process imports before it is given a fold: what it is sent
            names classes that stand there.
        settings: Those of this process, unless given.

    Raises:
        InvalidSetting: It needs an extra that is not installed.
    """
    settings = settings or ChapkitFlowsSettings()
    workers = settings.task_runner_workers
    if settings.task_runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if settings.task_runner == "processes":
        return ProcessPoolTaskRunner(max_workers=workers, initializer=_import_model, initargs=(entrypoint,))
    try:
        dask = import_module("chapkit_flows.flows.dask")
    except ModuleNotFoundError as error:
        raise InvalidSetting(
            f'task_runner is "dask", but {error.name} is not installed. Run: pip install "chapkit-flows[dask]"'
        ) from error
    runner: TaskRunner[Any] = dask.make_dask_runner(entrypoint, address=settings.cluster_address, workers=workers)
    return runner


def is_here() -> bool:
    """Whether folds run in this process, and may be given the model itself."""
    return ChapkitFlowsSettings().task_runner == "threads"


def _import_model(entrypoint: str | None) -> None:
    if entrypoint is not None:
        load_model(entrypoint)
