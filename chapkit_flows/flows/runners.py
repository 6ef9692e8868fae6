"""Where the folds of a backtest run: threads, processes, or a Dask or Ray cluster."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from importlib import import_module
from typing import Any, get_args

from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from chapkit_flows.errors import BacktestFailed, ChapkitFlowsError, InvalidSetting, WorkerLost
from chapkit_flows.flows.processes import ModelProcessPoolTaskRunner, make_process_runner
from chapkit_flows.flows.threads import ModelThreadPoolTaskRunner
from chapkit_flows.models.hints import ResourceHints
from chapkit_flows.settings import ChapkitFlowsSettings, TaskRunnerKind

_ONE_PROCESSOR = ResourceHints()


def make_task_runner(
    entrypoint: str | None, settings: ChapkitFlowsSettings | None = None, *, hints: ResourceHints = _ONE_PROCESSOR
) -> TaskRunner[Any]:
    """The task runner that the settings name. A cluster is spoken to when the first task is submitted.

    Args:
        entrypoint: Of the model, which the processes of this machine import before they are given a fold.
        settings: Those of this process, unless given.
        hints: What a fold of the model needs.

    Raises:
        InvalidSetting: It needs an extra that is not installed.
    """
    settings = settings or ChapkitFlowsSettings()
    at_once = hints.at_once(settings.task_runner_workers)
    if settings.task_runner == "threads":
        return ModelThreadPoolTaskRunner(max_workers=at_once)
    if settings.task_runner == "processes":
        return make_process_runner(entrypoint, workers=at_once)
    kind, address = settings.task_runner, settings.cluster_address
    try:
        engine = import_module(f"chapkit_flows.flows.{kind}")
    except ModuleNotFoundError as error:
        raise InvalidSetting(
            f'task_runner is "{kind}", but {error.name} is not installed. Run: pip install "chapkit-flows[{kind}]"'
        ) from error
    runner: TaskRunner[Any] = engine.make_runner(address=address, workers=settings.task_runner_workers, hints=hints)
    return runner


def choose_runner(
    kind: TaskRunnerKind | None, *, workers: int | None = None, address: str | None = None
) -> ChapkitFlowsSettings:
    """The settings of this process, with another task runner; their address is that of their own kind of cluster.

    Raises:
        InvalidSetting: A value does not fit.
    """
    own = ChapkitFlowsSettings()
    kind = kind or own.task_runner
    if address and kind not in ("dask", "ray"):
        raise InvalidSetting(f"{address} is the address of a cluster, and the task runner is {kind}: take dask or ray.")
    if kind not in get_args(TaskRunnerKind):
        raise InvalidSetting(f"There is no task runner {kind!r}: choose {', '.join(get_args(TaskRunnerKind))}.")
    if workers is not None and workers < 1:
        raise InvalidSetting(f"{workers} workers can do nothing: write 1 or more.")
    return own.model_copy(
        update={
            "task_runner": kind,
            "task_runner_workers": workers or own.task_runner_workers,
            "cluster_address": address or (own.cluster_address if kind == own.task_runner else None),
        }
    )


def is_here() -> bool:
    """Whether the tasks of this flow run are done in this process, and may be given the model itself."""
    context = FlowRunContext.get()
    return context is None or isinstance(context.task_runner, ThreadPoolTaskRunner)


def outcome_of(future: PrefectFuture[Any]) -> Any:
    """What a task returned; else why it did not, as an error that is returned."""
    try:
        result = future.result(raise_on_failure=False)
    except BrokenExecutor:
        return WorkerLost("A process that did a fold was killed, and with it all others.", with_others=True)
    except Exception as error:  # noqa: BLE001
        # Each cluster has errors of its own for a worker that is lost, and they have no base in common.
        return WorkerLost(f"The worker that did the fold was lost: {type(error).__name__}: {error}")
    if isinstance(result, BaseException) and not isinstance(result, ChapkitFlowsError):
        return BacktestFailed(f"{type(result).__name__}: {result}")
    return result


def renew_workers() -> None:
    """Have the flow's task runner take new processes, if one that was killed took the others with it."""
    context = FlowRunContext.get()
    if context is not None and isinstance(context.task_runner, ModelProcessPoolTaskRunner):
        context.task_runner.renew()
