"""What a run tells the world: Prefect events, and Python hooks for the same. docs/events.md is their catalogue."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from prefect.events import emit_event
from prefect.logging import get_run_logger

from chapkit_flows.errors import ValidationFailed
from chapkit_flows.lineage.assignments import ModelVersion
from chapkit_flows.lineage.facts import Reading, RunFact
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.settings import ChapkitFlowsSettings

GROUP = "chapkit_flows.events"
"""Entry points of this group are called with each event."""

_MAX_FINDINGS = 20
_MAX_METRICS = 50

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Something that a run did, once it is recorded.

    Attributes:
        name: Such as `chapkit.model.trained`.
        resource: The labels of what it is about; `prefect.resource.id` is `chapkit.model.NAME` or
            `chapkit.artifact.ID`.
        related: The labels of the run and the artifacts that belong to it, each with its `prefect.resource.role`.
        payload: JSON values, without secrets and without the text of errors.
    """

    name: str
    resource: Mapping[str, str]
    related: tuple[Mapping[str, str], ...]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetChange:
    """A URI gave another dataset than when it was last read."""

    reading: Reading
    artifact: ArtifactRef
    previous: Reading


def events_of_success(run: RunFact, changes: Iterable[DatasetChange] = ()) -> list[RunEvent]:
    """What a completed run tells."""
    events = [_changed(run, change) for change in changes]
    for role, name in (("model", "chapkit.model.trained"), ("prediction", "chapkit.prediction.created")):
        artifact = run.find_output(role)
        if artifact is not None:
            events.append(_made(run, name, artifact))
    return events


def events_of_failure(
    run: RunFact, error: BaseException | None = None, changes: Iterable[DatasetChange] = ()
) -> list[RunEvent]:
    """What a run tells that failed, was cancelled, or crashed."""
    events = [_changed(run, change) for change in changes]
    if isinstance(error, ValidationFailed):
        findings = [
            {"severity": found.severity, "code": found.code, "field": found.field} for found in error.diagnostics
        ]
        payload = {"findings": findings[:_MAX_FINDINGS], "count": len(findings)}
        events.append(_about_model(run, "chapkit.validation.failed", payload))
    # Never the message: it may repeat what it was given.
    reason = type(error).__name__ if isinstance(error, Exception) else None
    events.append(_about_model(run, f"chapkit.run.{run.status}", {"error": reason}))
    return events


def announce(events: Iterable[RunEvent], log: Log, settings: ChapkitFlowsSettings) -> None:
    """Call the hooks with each event, and send it to the Prefect server, which is not waited for."""
    for event in events:
        for hook in _find_hooks():
            try:
                hook.load()(event)
            except Exception:
                # Whoever wrote it, and whatever it needs: the run has done its work.
                log.exception("The event hook %s (%s) failed on %s; the run goes on", hook.name, hook.value, event.name)
        if settings.events:
            emit_event(
                event=event.name,
                resource=dict(event.resource),
                related=[dict(labels) for labels in event.related],
                payload=dict(event.payload),
            )


def announce_decision(
    run: RunFact,
    version: ModelVersion,
    alias: str,
    action: Literal["promoted", "proposed"],
    evidence: Mapping[str, Any],
) -> None:
    """Tell that a version has got an alias, or that it passed a gate and waits for somebody to give it one."""
    champion = evidence.get("champion")
    payload = {
        "version": version.name,
        "artifact_id": version.artifact_id,
        "alias": alias,
        "previous": champion["version"] if champion else None,
    }
    announce([_about_model(run, f"chapkit.model.{action}", payload)], get_run_logger(), ChapkitFlowsSettings())


@cache
def _find_hooks() -> tuple[EntryPoint, ...]:
    """The hooks that are installed."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda found: found.name))


def _changed(run: RunFact, change: DatasetChange) -> RunEvent:
    uri, role, artifact = change.reading.uri, change.reading.role, change.artifact
    payload = {
        "uri": uri,
        "role": role,
        "artifact_id": artifact.id,
        "digest": artifact.digest,
        "previous_artifact_id": change.previous.artifact_id,
    }
    resource = {
        "prefect.resource.id": f"chapkit.artifact.{artifact.id}",
        "prefect.resource.name": uri,
        "chapkit.uri": uri,
        "chapkit.model": run.model,
        "chapkit.flow": run.flow,
        "chapkit.role": role,
    }
    related = (
        _model(run) | {"prefect.resource.role": "model"},
        *_related(run, {"previous": change.previous.artifact_id}),
    )
    return RunEvent(name="chapkit.dataset.changed", resource=resource, related=related, payload=_common(run) | payload)


def _made(run: RunFact, name: str, artifact: ArtifactRef) -> RunEvent:
    payload: dict[str, Any] = {
        "artifact_id": artifact.id,
        "config": run.config.name if run.config else None,
        "config_digest": run.config.digest if run.config else None,
        "metrics": dict(list(run.metrics.items())[:_MAX_METRICS]),
    }
    if artifact.kind == "prediction":
        trained = [edge.artifact.id for edge in run.inputs if edge.role == "model"]
        known = {key: artifact.metadata.get(key) for key in ("first", "last", "places")}
        payload |= {"training_artifact_id": trained[0] if trained else None} | known
    return _about_model(run, name, payload)


def _about_model(run: RunFact, name: str, payload: Mapping[str, Any]) -> RunEvent:
    artifacts = {edge.role: edge.artifact.id for edge in (*run.inputs, *run.outputs)}
    return RunEvent(
        name=name, resource=_model(run), related=_related(run, artifacts), payload=_common(run) | dict(payload)
    )


def _common(run: RunFact) -> dict[str, Any]:
    return {"model": run.model, "flow": run.flow, "run_id": run.id, "flow_run_id": run.flow_run_id}


def _model(run: RunFact) -> dict[str, str]:
    return {
        "prefect.resource.id": f"chapkit.model.{run.model}",
        "prefect.resource.name": run.model,
        "chapkit.model": run.model,
    }


def _related(run: RunFact, artifacts: Mapping[str, str]) -> tuple[dict[str, str], ...]:
    """Prefect adds its own flow run, deployment and work pool to what is sent from within a run."""
    things = {f"chapkit.run.{run.id}": "run"}
    if run.flow_run_id:
        things[f"prefect.flow-run.{run.flow_run_id}"] = "flow-run"
    things |= {f"chapkit.artifact.{artifact_id}": role for role, artifact_id in artifacts.items()}
    return tuple({"prefect.resource.id": resource, "prefect.resource.role": role} for resource, role in things.items())
