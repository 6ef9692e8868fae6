"""What is sent with a task to another process: which flow run it belongs to, and nothing of what that run holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prefect import Flow
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings


@contextmanager
def sent_as_reference() -> Iterator[None]:
    """Within this, Prefect sends a flow run without its parameters and without the code of its flow.

    It would send both with each task: the config, and the model with all that stands in its file. What is sent could
    then be read only where that file has been imported, and the other process would make a task runner of its own.
    """
    context = FlowRunContext.get()
    if context is None or context.flow is None:
        yield
        return
    with context.model_copy(update={"flow": _stand_in(context.flow), "parameters": {}}):
        yield


def _stand_in(flow: Flow[..., object]) -> Flow[..., object]:
    """A flow of the same name, for the log lines of the tasks."""
    return Flow(
        _nothing,
        name=flow.name,
        persist_result=False,
        result_storage=get_current_settings().results.local_storage_path,
    )


def _nothing() -> None:
    """What a flow in another process does itself."""
