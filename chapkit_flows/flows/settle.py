"""Runs that ended without a word: their process was killed, or its machine went away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOrder, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger, get_run_logger
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed

from chapkit_flows.errors import ChapkitFlowsError, RunNotFound, StoreUnavailable
from chapkit_flows.flows.events import announce, events_of_failure
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Outcome, RunFact
from chapkit_flows.lineage.query import get_run, running_before
from chapkit_flows.lineage.record import finish
from chapkit_flows.refs import RunStatus, now
from chapkit_flows.resources import Resources, open_resources
from chapkit_flows.settings import ChapkitFlowsSettings

_HEARTBEAT_SECONDS = 180  # Prefect's own default
_ENDS: dict[StateType, RunStatus] = {
    StateType.CRASHED: "crashed",
    StateType.CANCELLED: "cancelled",
    StateType.CANCELLING: "cancelled",
    StateType.FAILED: "failed",
    # Somebody has set that by hand: a run that did its work has said so.
    StateType.COMPLETED: "crashed",
}


def silence() -> timedelta:
    """How long a run may be silent before it counts as dead: three heartbeats."""
    return timedelta(seconds=3 * (get_current_settings().flows.heartbeat_frequency or _HEARTBEAT_SECONDS))


async def settle(
    resources: Resources, *, silent_for: timedelta | None = None, runs: Sequence[RunFact] | None = None
) -> list[RunFact]:
    """Record how those runs ended that lineage believes to be running, and return them.

    The Prefect server knows: the flow run has ended there, or it has sent heartbeats and sends none any more;
    then it is marked as crashed there too. A run of which the server knows nothing stays as it is.

    Args:
        resources: Where the runs are recorded.
        silent_for: How old the last heartbeat of a dead run is; default: three heartbeats.
        runs: Only these; default: all that are recorded as running.

    Raises:
        httpx.HTTPError: The Prefect server does not answer.
    """
    suspects = await asyncio.to_thread(running_before, resources.database, now()) if runs is None else runs
    settled = []
    if suspects:
        async with get_client() as client:
            for run in suspects:
                state = await _find_end(client, run, silent_for)
                if state is not None:
                    settled.append(await asyncio.to_thread(record_end, resources, run, state))
    return [run for run in settled if run is not None]


async def settle_after(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Record how a run ended whose process could not: Prefect's runner calls this hook in its own process."""
    try:
        resources = open_resources()
        run = await asyncio.to_thread(get_run, resources.database, str(flow_run.id))
    except RunNotFound:
        return  # it was killed before it began, or its process has other settings than its worker
    if run.status == "running":
        await asyncio.to_thread(record_end, resources, run, state)


def find_dead(database: Database, model: str, *, besides: str) -> list[RunFact]:
    """The runs of a model that are recorded as running and began longer ago than a dead run may be silent."""
    return [run for run in running_before(database, now() - silence(), model) if run.id != besides]


async def settle_dead(resources: Resources, runs: Sequence[RunFact]) -> None:
    """Settle what `find_dead` found; whatever comes of it, the run that found them goes on."""
    try:
        await settle(resources, runs=runs)
    except (httpx.HTTPError, ChapkitFlowsError) as error:
        get_run_logger().warning("%d earlier runs could not be settled: %s", len(runs), error)


@flow(name="chapkit-flows-settle", log_prints=True)
async def settle_runs(silent_for: float | None = None) -> list[str]:
    """Record how those runs ended whose process was killed.

    Args:
        silent_for: Seconds since the last heartbeat of a dead run; default: three heartbeats.
    """
    limit = timedelta(seconds=silent_for) if silent_for else None
    settled = await settle(open_resources(), silent_for=limit)
    for run in settled:
        print(f"{run.id} ({run.flow} {run.model}): {run.status}")
    return [run.id for run in settled]


async def _find_end(client: PrefectClient, run: RunFact, silent_for: timedelta | None) -> State[Any] | None:
    """How a run has ended according to the server; None if it goes on, or nobody knows."""
    if run.flow_run_id is None:
        return None
    try:
        flow_run = await client.read_flow_run(UUID(run.flow_run_id))
    except ObjectNotFound:
        return None
    if flow_run.state is None or flow_run.state.is_final():
        return flow_run.state
    beats = await _last_heartbeats(client, flow_run.id)
    # One that is being cancelled stays so for ever once its worker is gone.
    is_cancelling = flow_run.state.type == StateType.CANCELLING
    alive = not beats or now() - beats[0] < (silent_for or _patience(beats))
    if alive or not (is_cancelling or flow_run.state.is_running()):
        return None
    message = f"No heartbeat since {beats[0]:%Y-%m-%d %H:%M:%S} UTC."
    ended: State[Any] = Cancelled(message=message) if is_cancelling else Crashed(message=message)
    await client.set_flow_run_state(flow_run.id, ended, force=True)
    return ended


async def _last_heartbeats(client: PrefectClient, flow_run_id: UUID) -> list[datetime]:
    """The two last ones, newest first."""
    wanted = EventFilter(
        event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{flow_run_id}"]),
        order=EventOrder.DESC,
    )
    return [event.occurred for event in (await client.read_events(wanted, limit=2)).events]


def _patience(beats: Sequence[datetime]) -> timedelta:
    """Three heartbeats: of this process, or of the run, whose process may have another setting."""
    return max(silence(), 3 * (beats[0] - beats[-1]))


def record_end(resources: Resources, run: RunFact, state: State[Any]) -> RunFact | None:
    """The run as it ended; None if it has recorded that itself meanwhile."""
    ended = state.timestamp or now()
    said = f"Prefect says {state.name}" + (f": {state.message}" if state.message else "")
    outcome = Outcome(status=_ENDS[state.type], error=said, finished_at=max(ended, run.started_at))
    log = get_logger("chapkit_flows")
    # Between the look at the database and the answer of the server it may have done its work, or failed at it.
    keep = partial(_write_manifest, resources, log) if _is_reached(resources, log, run) else None
    fact = finish(resources.database, run.id, outcome, keep=keep, only_running=True)
    if (fact.status, fact.finished_at) != (outcome.status, outcome.finished_at):
        return None
    announce(events_of_failure(fact), log, ChapkitFlowsSettings())
    return fact


def _is_reached(resources: Resources, log: logging.Logger, run: RunFact) -> bool:
    """Whether the store answers: nobody else must have to wait for the database until a silent one is given up."""
    try:
        resources.store.reach()
    except StoreUnavailable as error:
        _warn(log, run, error)
        return False
    return True


def _write_manifest(resources: Resources, log: logging.Logger, run: RunFact) -> None:
    try:
        resources.store.write_manifest(f"runs/{run.id}", run.to_dict())
    except StoreUnavailable as error:
        _warn(log, run, error)


def _warn(log: logging.Logger, run: RunFact, error: StoreUnavailable) -> None:
    # The store may be what the run died of: its row says so all the same.
    log.warning("The manifest of the run %s could not be written: %s", run.id, error)
