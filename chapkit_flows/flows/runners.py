"""Where the folds of a backtest run: threads, processes, or a cluster that is there."""

from __future__ import annotations

from typing import Any

from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from chapkit_flows.models.discovery import load_model
from chapkit_flows.settings import ChapkitFlowsSettings


def make_task_runner(entrypoint: str | None, settings: ChapkitFlowsSettings | None = None) -> TaskRunner[Any]:
    """The task runner that the settings name.

    Args:
        entrypoint: Of the model, whose file each other process imports before it is given a fold: what it is sent
            names classes that stand there.
        settings: Those of this process, unless given.
    """
    settings = settings or ChapkitFlowsSettings()
    if settings.task_runner == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.task_runner_workers)
    return ProcessPoolTaskRunner(
        max_workers=settings.task_runner_workers,
        initializer=_import_model,
        initargs=(entrypoint,),
    )


def is_here() -> bool:
    """Whether folds run in this process, and may be given the model itself."""
    return ChapkitFlowsSettings().task_runner == "threads"


def _import_model(entrypoint: str | None) -> None:
    if entrypoint is not None:
        load_model(entrypoint)
