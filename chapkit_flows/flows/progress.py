"""A progress bar in the Prefect UI, for models that take long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from chapkit_flows.errors import ChapkitFlowsError
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.summary import artifact_key
from chapkit_flows.lineage.query import last_metric
from chapkit_flows.models.masking import Mask
from chapkit_flows.models.progress import Report, watching
from chapkit_flows.settings import ChapkitFlowsSettings

_DOING = {"fit_seconds": ("Fitting", "fit"), "predict_seconds": ("Predicting", "prediction")}
_ALMOST = 95.0  # per cent: how far an estimate may go


@asynccontextmanager
async def showing_progress(session: RunSession, metric: str, mask: Mask) -> AsyncIterator[None]:
    """Show how far the model's code has come, if it runs for more than a few seconds; a short run pays nothing.

    The model may say so itself (`report_progress`); else the time that the last run took is the measure.

    Args:
        metric: Under which the run records how long that took: `fit_seconds` or `predict_seconds`.
        mask: Takes the secrets out of what the model says.
    """
    every = ChapkitFlowsSettings().progress_seconds
    if not every:
        yield
        return
    report = Report()
    bar = _Bar(session, metric, report, mask)
    with watching(report):
        moving = asyncio.create_task(bar.move(every))
        completed = False
        try:
            yield
            completed = True
        finally:
            moving.cancel()
            await asyncio.wait([moving])
            await bar.end(completed=completed)


class _Bar:
    """The progress artifact of a run: made when it is first worth a look."""

    def __init__(self, session: RunSession, metric: str, report: Report, mask: Mask) -> None:
        self._session = session
        self._mask = mask
        self._metric = metric
        self._report = report
        self._began = time.monotonic()
        self._expected: float | None = None
        self._artifact: UUID | None = None

    async def move(self, every: float) -> None:
        """Show the newest report every so many seconds, until cancelled."""
        await asyncio.sleep(every)
        database, run = self._session.resources.database, self._session.fact
        try:
            self._expected = await asyncio.to_thread(last_metric, database, run.model, self._metric)
            while True:
                await self._show(self._per_cent(), self._describe())
                await asyncio.sleep(every)
        except (ChapkitFlowsError, httpx.HTTPError, PrefectException) as error:
            # The server may be away for a while, and the run go on without it.
            get_run_logger().warning("Progress is not shown any more: %s", error)

    async def end(self, *, completed: bool) -> None:
        """Leave a bar that says how it ended, if there is one."""
        if self._artifact is None:
            return
        how, per_cent = ("done", 100.0) if completed else ("stopped", self._per_cent())
        try:
            await self._show(per_cent, f"{self._describe()} ({how})")
        except (httpx.HTTPError, PrefectException) as error:
            get_run_logger().warning("The end of the progress is not shown: %s", error)

    async def _show(self, per_cent: float, description: str) -> None:
        if self._artifact is None:
            key = artifact_key(self._session.model.name, "progress")
            self._artifact = await acreate_progress_artifact(per_cent, key=key, description=description)
        else:
            await aupdate_progress_artifact(self._artifact, per_cent, description=description)

    def _per_cent(self) -> float:
        if self._report.fraction is not None:
            return round(100 * self._report.fraction, 1)
        if self._expected:
            return round(min(_ALMOST, 100 * (time.monotonic() - self._began) / self._expected), 1)
        return 0.0

    def _describe(self) -> str:
        doing, noun = _DOING[self._metric]
        parts = [f"{doing} {self._session.model.name} for {time.monotonic() - self._began:.0f} s"]
        if self._report.message:
            parts.append(self._mask(self._report.message))
        elif self._report.fraction is None and self._expected:
            parts.append(f"the last {noun} took {self._expected:.0f} s")
        return "; ".join(parts)
