"""One run from its start to its record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any, Self

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger

from chapkit_flows.artifacts.manifests import artifact_manifest, user_name
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import config_version, is_saved
from chapkit_flows.data.sources import mask_uri
from chapkit_flows.errors import ChapkitFlowsError, StoreUnavailable
from chapkit_flows.flows.config_history import keep_entry, write_entry
from chapkit_flows.flows.events import DatasetChange, announce, events_of_failure, events_of_success
from chapkit_flows.flows.ingest import Fetched
from chapkit_flows.flows.settle import find_dead, settle_dead
from chapkit_flows.lineage.facts import ConfigEntry, Edge, Outcome, Reading, RunFact
from chapkit_flows.lineage.readings import last_reading_of
from chapkit_flows.lineage.record import begin, finish
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.refs import ArtifactRef, ConfigRef, RunRef, RunStatus, new_id, now
from chapkit_flows.resources import Resources, open_resources
from chapkit_flows.settings import ChapkitFlowsSettings

MAX_ERROR = 4000
TIMED_OUT = (
    "The run took longer than its time limit of {:g} seconds. Raise timeout_seconds, or give the model less to do."
)


class RunSession:
    """What a run has consumed and produced so far, and how it ends.

    Entering records the run as running. Leaving with an exception records it as failed, with what it had by
    then; `complete` records it as completed. Bytes and manifests are in the store before a row names them.

    Attributes:
        model: The model that runs.
        resources: The open store and database.
        fact: The run as it was last recorded. Its status is `completed` on entry when this flow run has done
            its work already and only what follows the record is repeated.
    """

    def __init__(
        self, model: ModelContract, flow: str, parameters: Mapping[str, Any], *, config: ModelConfig | None = None
    ) -> None:
        """A run that has not begun.

        Args:
            model: That runs.
            flow: Its name.
            parameters: That the run was started with; those that are None are left out.
            config: That the run was started with. If it is a saved one, its content now is kept in its history.
        """
        self.model = model
        self.inputs: list[Edge] = []
        self.outputs: list[Edge] = []
        self.readings: list[Reading] = []
        self.metrics: dict[str, float] = {}
        self.artifact_metrics: dict[str, dict[str, float]] = {}
        given = {name: value for name, value in parameters.items() if value is not None}
        self.parameters = {name: mask_uri(value) if isinstance(value, str) else value for name, value in given.items()}
        self.changes: list[DatasetChange] = []
        self.config: ConfigRef | None = config_version(config) if config is not None else None
        self._is_saved = config is not None and is_saved(config)
        self._new_entry: ConfigEntry | None = None
        self._began_done = False
        self._dead: list[RunFact] = []
        self._flow = flow
        self._settings: ChapkitFlowsSettings
        self._ingested: set[str] = set()
        self.resources: Resources
        self.fact: RunFact

    async def __aenter__(self) -> Self:
        await name_run(self.model.name)
        await asyncio.to_thread(self._open)
        if self._dead:
            await settle_dead(self.resources, self._dead)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.done:
            # Of an attempt that failed only what it left for inspection counts: its model must not pass for a good one.
            self.outputs = [edge for edge in self.outputs if edge.artifact.status == "failed"]
            limit = _passed_limit(error)
            status = _status(error) if limit is None else "failed"
            try:
                # Not in a thread: this must also work while the task is being cancelled.
                self._record(status, _describe(error, status, limit)[:MAX_ERROR])
            except ChapkitFlowsError as second:
                # It must not hide why the run failed.
                get_run_logger().error("The run could not be recorded as %s: %s", status, second)
                return
            announce(events_of_failure(self.fact, error, self.changes), get_run_logger(), self._settings)
        elif not self._began_done:
            announce(events_of_success(self.fact, self.changes), get_run_logger(), self._settings)

    @property
    def done(self) -> bool:
        """Whether the run is recorded as completed."""
        return self.fact.status == "completed"

    def use_config(self, config: ModelConfig) -> None:
        """Remember the config of an earlier run; one that this run was started with is given when it is made."""
        self.config = config_version(config)

    def consumed(
        self, role: str, artifact: ArtifactRef, *, fetched: Fetched | None = None, ingested: bool = False
    ) -> None:
        """Remember an input, where it was read from, and whether this run is the first to bring it into the store."""
        self.inputs.append(Edge(role=role, artifact=artifact))
        reading = fetched.reading(self.fact.id, role, artifact) if fetched is not None else None
        if reading is not None:
            previous = last_reading_of(self.resources.database, reading.uri_digest)
            if previous is not None and previous.artifact_id != artifact.id:
                self.changes.append(DatasetChange(reading=reading, artifact=artifact, previous=previous))
            self.readings.append(reading)
        if ingested:
            self._ingested.add(artifact.id)

    def produced(self, role: str, artifact: ArtifactRef) -> None:
        """Remember an output."""
        self.outputs.append(Edge(role=role, artifact=artifact))

    async def complete(self) -> RunFact:
        """Record the run as completed, with all that it consumed and produced, in one transaction."""
        return await asyncio.to_thread(self._record, "completed")

    def _open(self) -> None:
        self._settings = ChapkitFlowsSettings()
        self.resources = open_resources(self._settings)
        context = FlowRunContext.get()
        flow_run = context.flow_run if context else None
        run = RunRef(
            id=new_id(),
            flow=self._flow,
            model=self.model.name,
            entrypoint=self.model.entrypoint,
            flow_run_id=str(flow_run.id) if flow_run else None,
            flow_run_name=flow_run.name if flow_run else None,
            parameters=self.parameters,
        )
        saved = self.config if self._is_saved else None
        self.fact, _ = begin(self.resources.database, run, saved, author=user_name(), keep=self._write_entry)
        self._began_done = self.done
        self._dead = find_dead(self.resources.database, self.model.name, besides=self.fact.id)

    def _write_entry(self, entry: ConfigEntry, document: Mapping[str, Any]) -> None:
        try:
            write_entry(self.resources.store, entry, document)
        except StoreUnavailable:  # what follows needs the store too, and says so better
            self._new_entry = entry

    def _record(self, status: RunStatus, error: str | None = None) -> RunFact:
        outcome = Outcome(
            status=status,
            error=error,
            finished_at=now(),  # the manifest and the row must say the same
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            readings=tuple(sorted(self.readings, key=lambda reading: reading.id)),
            config=self.config,
            code=self.model.code_version,
            metrics=self.metrics,
            artifact_metrics=self.artifact_metrics,
        )
        # The store may be what the run failed on: its row says so all the same.
        fails: AbstractContextManager[None] = nullcontext() if status == "completed" else suppress(StoreUnavailable)
        is_there = False

        def keep(fact: RunFact) -> None:
            with fails:
                if is_there:
                    self.resources.store.write_manifest(f"runs/{fact.id}", fact.to_dict())

        with fails:
            if status != "completed":
                self.resources.store.reach()  # others must not wait for the database as long as this run for the store
            self._write_manifests(outcome)
            is_there = True
        self.fact = self._finish(outcome, keep)
        return self.fact

    def _finish(self, outcome: Outcome, keep: Callable[[RunFact], None]) -> RunFact:
        """Record the run; `keep` writes its manifest, before that counts."""
        return finish(self.resources.database, self.fact.id, outcome, keep=keep)

    def _write_manifests(self, outcome: Outcome) -> None:
        if self._new_entry is not None:
            keep_entry(self.resources, self._new_entry)
            self._new_entry = None
        made_here = [edge.artifact for edge in outcome.outputs]
        made_here += [edge.artifact for edge in outcome.inputs if edge.artifact.id in self._ingested]
        for artifact in made_here:
            document = artifact_manifest(artifact, run_id=self.fact.id)
            self.resources.store.write_manifest(f"artifacts/{artifact.id}", document)


async def name_run(model: str) -> None:
    """Name the flow run after its model, config and data, and tag it with its model and its saved config.

    A flow's own `flow_run_name` stays. Every flow could have one, but for that Prefect makes one more client: a tenth
    of a small run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow is None:
        return
    given = context.parameters or {}
    saved = getattr(given.get("config"), "_block_document_name", None)
    parts = [model, saved, given.get("model")]
    parts += [_last_part(str(given[key])) for key in ("data", "future") if given.get(key)]
    name = None if context.flow.flow_run_name else " · ".join(str(part) for part in parts if part)
    tags = sorted({*context.flow_run.tags, model, *([saved] if saved else [])})
    async with get_client() as client:
        await client.update_flow_run(context.flow_run.id, name=name, tags=tags)
    context.flow_run.name = name or context.flow_run.name
    context.flow_run.tags = tags


def _last_part(uri: str) -> str:
    """The name of a file, without the host and the signature that a URL may have."""
    path = mask_uri(uri).split("?", 1)[0].split("://", 1)[-1]
    return path.rstrip("/").rsplit("/", 1)[-1] if "/" in path or "://" not in uri else ""


def _passed_limit(error: BaseException) -> float | None:
    """The flow's `timeout_seconds`, once it has passed: Prefect then cancels the run, as a user would."""
    context = FlowRunContext.get()
    if not isinstance(error, asyncio.CancelledError) or context is None or context.flow is None:
        return None
    limit = context.flow.timeout_seconds
    return limit if limit and (now() - context.start_time).total_seconds() >= limit else None


def _status(error: BaseException) -> RunStatus:
    """How a run ended; Prefect raises a signal wherever the process happens to be, or cancels what it waits for."""
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | TerminationSignal):
        return "cancelled"
    return "failed" if isinstance(error, Exception) else "crashed"


def _describe(error: BaseException, status: RunStatus, limit: float | None) -> str:
    if isinstance(error, SystemExit):
        # Prefect's console log ends the process once nobody reads it.
        return f"The process was told to exit ({error.code}); the worker that read its output may be gone."
    if isinstance(error, Exception) or status == "crashed":
        return f"{type(error).__name__}: {error}"
    reason = "The run was cancelled." if limit is None else TIMED_OUT.format(limit)
    return "\n".join([reason, *getattr(error, "__notes__", [])])
