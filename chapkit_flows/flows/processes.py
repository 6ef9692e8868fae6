"""Folds in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any, Self

from prefect.context import SyncClientContext
from prefect.futures import PrefectConcurrentFuture
from prefect.settings import PREFECT_API_URL
from prefect.task_runners import ProcessPoolTaskRunner

from chapkit_flows.flows.sending import sent_as_reference
from chapkit_flows.models.discovery import load_model


class ModelProcessPoolTaskRunner(ProcessPoolTaskRunner):
    """Prefect's own, whose processes import the file of a model once, and end when this process does."""

    def submit(self, *arguments: Any, **named: Any) -> PrefectConcurrentFuture[Any]:
        """As Prefect's, with a reference to the flow run."""
        with sent_as_reference():
            future: PrefectConcurrentFuture[Any] = super().submit(*arguments, **named)
            return future

    def __enter__(self) -> Self:
        """Start; the processes come with the first task."""
        self._initargs = (*self._initargs[:1], PREFECT_API_URL.value())
        return super().__enter__()

    def renew(self) -> None:
        """Take new processes, in the place of those that ended with one that was killed."""
        self.__exit__(None, None, None)
        self.__enter__()


def make_process_runner(entrypoint: str | None, *, workers: int) -> ModelProcessPoolTaskRunner:
    """A runner on so many processes, which end with the flow."""
    return ModelProcessPoolTaskRunner(max_workers=workers, initializer=begin_process, initargs=(entrypoint, None))


def begin_process(entrypoint: str | None, server: str | None) -> None:
    """Called once in each process: what it imports and opens here no fold has to wait for.

    Args:
        entrypoint: Of the model.
        server: The Prefect server that the flow speaks to.
    """
    threading.Thread(target=_end_with_parent, name="end with the flow", daemon=True).start()
    if entrypoint is not None:
        load_model(entrypoint)
    if server is not None and server == PREFECT_API_URL.value():
        SyncClientContext().__enter__()  # each task makes two clients unless there is one


def _end_with_parent() -> None:
    """A process whose flow was killed would wait for its next fold for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)
