"""The flow that trains a model again when there is something new."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Completed

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.flows import steps
from chapkit_flows.flows.check import resolve_horizon
from chapkit_flows.flows.gating import RetrainGate, find_drift, promote_or_keep, publish_decision, try_candidate
from chapkit_flows.flows.places import fit_model
from chapkit_flows.flows.results import RetrainResult
from chapkit_flows.flows.secrets import with_secrets
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.summary import publish_nothing_new
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import latest_training
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.refs import ArtifactRef, CodeVersion

NOTHING_NEW = "NothingNew"
"""The name of the completed state of a run that trained nothing."""


async def retrain(
    model: ModelContract,
    config: ModelConfig,
    inputs: tuple[str, str | None],
    prediction_periods: int | None = None,
    *,
    force: bool = False,
    gate: RetrainGate | None = None,
) -> RetrainResult | State[RetrainResult]:
    """Load and fingerprint the data, look for what is new; train as `train` does, or say that nothing is.

    With a gate the new model is tried beside the champion, and takes its place or does not.
    """
    data, geo = inputs
    given: dict[str, Any] = {"data": data, "geo": geo, "prediction_periods": prediction_periods, "force": force or None}
    given["gate"] = gate.model_dump(mode="json") if gate else None
    async with RunSession(model, "retrain", given, config=config) as run:
        if not run.done:
            settings = with_horizon(config, resolve_horizon(config, prediction_periods))
            revealed = await with_secrets(model.name, settings)
            table = await steps.load_data(run, data, role="data", config=settings)
            polygons = await steps.load_geo(run, geo) if geo else None
            current = None if force else await find_unchanged(run, settings)
            if current is None:
                panel = await steps.validate_training(run, revealed, table, polygons)
                trained = await fit_model(run, (settings, revealed), panel, polygons)
                await steps.store_model(run, trained, settings, panel)
                if gate is not None:
                    drift = await find_drift(run, settings, gate.alias, panel)
                    await try_candidate(run, settings, gate, panel, drift)
            else:
                run.consumed("model", current)
            await steps.record(run)
        made = run.fact.find_output("model")
        if made is None:
            return await _say_nothing_new(run.fact)
        if run.fact.find_output("report") is None:
            await steps.publish(run)
            return _result(run.fact, made, is_new=True)
        promoted, told = await promote_or_keep(run)
        await publish_decision(run.fact, told)
        return replace(_result(run.fact, made, is_new=True), promoted=promoted)


@steps.step("look for what is new")
async def find_unchanged(session: RunSession, config: ModelConfig) -> ArtifactRef | None:
    """The model in use, if training now would only make it again; None if there is something new."""
    last = await asyncio.to_thread(latest_training, session.resources.database, session.model.name)
    log = get_run_logger()
    if last is None:
        log.info("%s was not trained before", session.model.name)
        return None
    current = last.output("model")
    news = await asyncio.to_thread(lambda: list(find_news(session, config, last)))
    if news:
        log.info("New since the training of %s: %s", current.id, ", ".join(news))
        return None
    log.info("Nothing new since the training of %s", current.id)
    return current


def find_news(session: RunSession, config: ModelConfig, last: RunFact) -> Iterator[str]:
    """What differs between a run that has loaded its inputs and a training.

    Installed packages are not compared: an environment that is built anew each night would train each night.
    """
    for role in ("data", "geo"):
        now, before = (
            {edge.artifact.digest for edge in edges if edge.role == role} for edges in (session.inputs, last.inputs)
        )
        if now != before:
            yield role
    if session.config is None or last.config is None or session.config.digest != last.config.digest:
        yield "config"
    facts = last.output("model").metadata
    if facts.get("prediction_periods") != config.prediction_periods:
        yield "prediction_periods"
    if last.code is None or _source(last.code) != _source(session.model.code_version):
        yield "code"
    if facts.get("contract") != session.model.digest:
        yield "contract"


def _source(code: CodeVersion) -> tuple[str | None, ...]:
    return code.git_commit, code.patch_digest, code.source_digest


async def _say_nothing_new(run: RunFact) -> RetrainResult | State[RetrainResult]:
    current = next(edge.artifact for edge in run.inputs if edge.role == "model")
    await publish_nothing_new(run, current)
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None and context.flow_run.run_count > 1:
        # After a state of one's own Prefect raises the error of the attempt before, though the run is completed.
        return _result(run, current, is_new=False)
    return Completed(
        name=NOTHING_NEW,
        message=f"Nothing new since the training of {current.id}, which stays in use.",
        data=_result(run, current, is_new=False),
    )


def _result(run: RunFact, model: ArtifactRef, *, is_new: bool) -> RetrainResult:
    return RetrainResult(
        run_id=run.id, status=run.status, artifact_id=model.id, flow_run_id=run.flow_run_id, is_new=is_new
    )
