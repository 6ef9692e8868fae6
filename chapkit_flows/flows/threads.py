"""Folds in threads of this process."""

from __future__ import annotations

from typing import Any

from prefect.context import SyncClientContext
from prefect.futures import PrefectConcurrentFuture
from prefect.task_runners import ThreadPoolTaskRunner


class ModelThreadPoolTaskRunner(ThreadPoolTaskRunner[Any]):
    """Prefect's own, whose tasks share one client of the server.

    Prefect 3.8 makes two for each synchronous task unless there is one, and each reads the certificates of the machine:
    four fifths of what an empty task costs.
    """

    _clients: SyncClientContext | None = None

    def submit(self, *arguments: Any, **named: Any) -> PrefectConcurrentFuture[Any]:
        """As Prefect's: a task sees the context in which it is submitted."""
        if self._clients is None:
            self._clients = SyncClientContext()
            self._clients.client.__enter__()
        token = SyncClientContext.__var__.set(self._clients)
        try:
            future: PrefectConcurrentFuture[Any] = super().submit(*arguments, **named)
            return future
        finally:
            SyncClientContext.__var__.reset(token)

    def __exit__(self, *error: Any) -> None:
        """End the threads, then the client."""
        super().__exit__(*error)
        if self._clients is not None:
            self._clients.client.__exit__(None, None, None)
            self._clients = None
