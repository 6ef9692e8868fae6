"""The steps of the flows, each a Prefect task with a name that a user understands."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger

from chapkit_flows.artifacts.codecs import load, save
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.rules import check_rules
from chapkit_flows.data.panels import Panel
from chapkit_flows.data.periods import period_start
from chapkit_flows.errors import (
    ArtifactError,
    ChapkitFlowsError,
    InvalidPrediction,
    RunnerFailed,
    ScriptFailed,
    ValidationFailed,
)
from chapkit_flows.evaluation.charts import forecast_spec, quantile_table, render_png
from chapkit_flows.flows.check import (
    Loaded,
    check_prediction,
    check_trained_places,
    check_training,
    errors_first,
    has_errors,
)
from chapkit_flows.flows.ingest import UNREADABLE, fetch, keep, parse_geo, parse_table, unreadable
from chapkit_flows.flows.predictions import read_predictions
from chapkit_flows.flows.progress import showing_progress
from chapkit_flows.flows.secrets import describe_failure, log_masked
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.summary import Forecast, profile_line, publish_diagnostics, publish_summary, short
from chapkit_flows.flows.training import Training, load_training
from chapkit_flows.lineage.facts import Newer, RunFact
from chapkit_flows.lineage.staleness import stale_reasons
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.masking import Mask
from chapkit_flows.models.runner import BaseModelRunner, Geo, initialised, settle
from chapkit_flows.models.shell import ShellPrediction
from chapkit_flows.models.worker import run_apart, run_in_worker
from chapkit_flows.models.workspace import Workspace
from chapkit_flows.refs import ArtifactRef, Diagnostic, Kind, canonical_json, new_id
from chapkit_flows.settings import ChapkitFlowsSettings

P = ParamSpec("P")
T = TypeVar("T")
Step = Callable[P, Coroutine[Any, Any, T]]

_LEVELS: Mapping[Kind, int] = {"training_workspace": 0, "prediction": 1, "prediction_workspace": 2}


def step(name: str, **options: Any) -> Callable[[Step[P, T]], Step[P, T]]:
    """Make a coroutine function a Prefect task.

    Results stay in memory: frames and models must not go to Prefect's result storage, nor be hashed for its cache.
    """

    def decorate(function: Step[P, T]) -> Step[P, T]:
        decorated = task(name=name, cache_policy=NO_CACHE, persist_result=False, **options)(function)
        return cast(Step[P, T], decorated)

    return decorate


@step("load data", task_run_name="load {role}")
async def load_data(session: RunSession, uri: str, *, role: str, config: ModelConfig) -> Loaded:
    """Read a table, and keep its bytes in the store under their fingerprint."""
    async with showing_unreadable(session.model, role):
        loaded, artifact = await run_apart(_load_table, session, uri, role=role, config=config)
    log = get_run_logger()
    if loaded.panel is not None:
        log.info("Loaded %s: %s, %s", role, profile_line(loaded.panel.profile()), short(artifact.digest))
    return loaded


def _load_table(session: RunSession, uri: str, *, role: str, config: ModelConfig) -> tuple[Loaded, ArtifactRef]:
    with fetch(session.resources, uri) as fetched:
        loaded = parse_table(
            fetched,
            role,
            required=session.model.covariates(config),
            target=session.model.target,
            with_target=role != "future",
        )
        profile = loaded.panel.profile() if loaded.panel is not None else {}
        artifact, ingested = keep(session.resources, fetched, profile)
    session.consumed(role, artifact, fetched=fetched, ingested=ingested)
    return loaded, artifact


@step("load polygons")
async def load_geo(session: RunSession, uri: str) -> Geo:
    """Read GeoJSON, and keep its bytes in the store."""

    def work() -> Geo:
        with fetch(session.resources, uri) as fetched:
            geo = parse_geo(fetched)
            artifact, ingested = keep(session.resources, fetched, {"features": len(geo.features)})
        session.consumed("geo", artifact, fetched=fetched, ingested=ingested)
        return geo

    async with showing_unreadable(session.model, "geo"):
        geo = await run_apart(work)
    get_run_logger().info("Loaded %d polygons", len(geo.features))
    return geo


@asynccontextmanager
async def showing_unreadable(model: ModelContract, role: str) -> AsyncIterator[None]:
    """Show that an input cannot be read as a finding, as `validate` does, before the run fails."""
    try:
        yield
    except UNREADABLE as error:
        await publish_diagnostics(model.name, [unreadable(error, role)])
        raise


@step("validate")
async def validate_training(session: RunSession, config: ModelConfig, data: Loaded, geo: Geo | None) -> Panel:
    """Check the inputs against the model's contract, and ask the model itself.

    Raises:
        ValidationFailed: There are errors; they are shown as a table in the Prefect UI.
    """
    findings = await training_findings(session.model, config, data, geo)
    await _stop_on_errors(session.model, findings)
    assert data.panel is not None
    return data.panel


async def training_findings(
    model: ModelContract, config: ModelConfig, data: Loaded, geo: Geo | None
) -> tuple[Diagnostic, ...]:
    """All findings about training inputs; the model itself is asked once nothing else is wrong."""
    findings = check_training(model, config, data, geo, periods=config.prediction_periods)
    if has_errors(findings) or data.panel is None:
        return findings
    frame = _own(data.panel)
    mask = Mask(config)
    said = await call_model(
        model.runner, "on_validate_train", lambda runner: runner.on_validate_train(config, frame, geo), mask
    )
    return errors_first([*findings, *_findings_of("on_validate_train", said, mask)])


@step("validate")
async def validate_prediction(
    session: RunSession, config: ModelConfig, historic: Loaded, future: Loaded, geo: Geo | None, *, asked: int
) -> tuple[Panel, Panel]:
    """Check the inputs against the model's contract, and ask the model itself.

    Args:
        asked: The explicit horizon, else that of the training's config.

    Raises:
        ValidationFailed: There are errors; they are shown as a table in the Prefect UI.
    """
    findings = await prediction_findings(session.model, config, historic, future, geo, asked=asked)
    used = next(edge.artifact for edge in session.inputs if edge.role == "model")
    findings = errors_first([*findings, *check_trained_places(used, future.panel)])
    await _stop_on_errors(session.model, findings)
    assert historic.panel is not None
    assert future.panel is not None
    return historic.panel, future.panel


async def prediction_findings(
    model: ModelContract, config: ModelConfig, historic: Loaded, future: Loaded, geo: Geo | None, *, asked: int
) -> tuple[Diagnostic, ...]:
    """All findings about prediction inputs; the model itself is asked once nothing else is wrong."""
    findings = check_prediction(model, historic, future, geo, periods=config.prediction_periods, asked=asked)
    findings = errors_first([*findings, *check_rules(config)])
    if has_errors(findings) or historic.panel is None or future.panel is None:
        return findings
    past, ahead = _own(historic.panel), _own(future.panel)
    mask = Mask(config)
    said = await call_model(
        model.runner, "on_validate_predict", lambda runner: runner.on_validate_predict(config, past, ahead, geo), mask
    )
    return errors_first([*findings, *_findings_of("on_validate_predict", said, mask)])


def _own(panel: Panel) -> pd.DataFrame:
    """A frame for the model's code: whatever it does to it stays with it. Nothing is copied before it is written."""
    return panel.frame.copy(deep=False)


def _findings_of(name: str, returned: Any, mask: Mask) -> Sequence[Diagnostic]:
    """What the model's own check returned, as findings; secrets masked.

    Raises:
        RunnerFailed: It is neither None, nor a Diagnostic, nor some of them.
    """
    found = [returned] if isinstance(returned, Diagnostic) else returned or ()
    if isinstance(found, Sequence) and all(isinstance(item, Diagnostic) for item in found):
        return [replace(item, message=mask(item.message)) for item in found] if mask else found
    raise RunnerFailed(
        f"{name} returned {mask(str(returned))[:80]!r}. Return a list of Diagnostic, which may be empty."
    )


async def _stop_on_errors(model: ModelContract, findings: tuple[Diagnostic, ...]) -> None:
    log = get_run_logger()
    for found in findings:
        if found.severity != "error":
            log.warning("%s: %s", found.code, found.message)
    if has_errors(findings):
        await publish_diagnostics(model.name, findings)
        raise ValidationFailed(findings)


@step("fit the model", task_run_name="fit {session.model.name}")
async def fit(session: RunSession, config: ModelConfig, data: Panel, geo: Geo | None) -> Any:
    """Call the model's training code in a worker thread.

    Raises:
        RunnerFailed: It raised an exception, or returned None.
        ScriptFailed: Its command failed; what it left is kept as a failed artifact.
    """
    began = time.perf_counter()
    mask = Mask(config)
    async with showing_progress(session, "fit_seconds", mask):
        trained = await _call_kept(
            session,
            ("on_train", "training_workspace"),
            lambda runner: runner.on_train(config, _own(data), geo),
            mask,
        )
    if trained is None:
        raise RunnerFailed(
            f"on_train of the model {session.model.name} returned None. Return the fitted model: any object."
        )
    if isinstance(trained, os.PathLike) and not Path(trained).is_dir():
        raise RunnerFailed(
            f"on_train of the model {session.model.name} returned the path {os.fspath(trained)!r}, which is no folder. "
            "Return a folder, whose files are kept, or the fitted model itself."
        )
    session.metrics["fit_seconds"] = time.perf_counter() - began
    get_run_logger().info("Fitted %s in %.1f s", session.model.name, session.metrics["fit_seconds"])
    return trained


@step("store the model")
async def store_model(session: RunSession, trained: Any, config: ModelConfig, data: Panel) -> ArtifactRef:
    """Put the trained model, or the workspace that the command left, into the store."""
    facts = {
        "model": session.model.name,
        "entrypoint": session.model.entrypoint,
        "contract": await asyncio.to_thread(lambda: session.model.digest),
        "prediction_periods": config.prediction_periods,
        "trained_on": data.profile(),
    }
    if session.model.metadata:
        facts["about"] = json.loads(canonical_json(session.model.metadata))  # whatever has no JSON becomes text
    artifact = await run_apart(
        _store,
        session,
        trained,
        kind="training_workspace",
        metadata=facts | dict(session.model.runner.describe(trained)),
    )
    session.produced("model", artifact)
    get_run_logger().info("Stored the trained model: %d bytes, %s", artifact.size, short(artifact.digest))
    return artifact


@step("load the model")
async def load_model(session: RunSession, artifact_id: str) -> Training:
    """Find the trained model and the config version that its training used.

    Raises:
        ValidationFailed: There is none with that id that this model can predict with.
    """
    try:
        training = await load_training(session.resources.database, session.model, artifact_id)
    except ValidationFailed as refusal:
        await publish_diagnostics(session.model.name, refusal.diagnostics)
        raise
    session.consumed("model", training.artifact)
    return training


@step("predict", task_run_name="predict with {session.model.name}")
async def predict_future(
    session: RunSession, training: Training, config: ModelConfig, inputs: tuple[Panel, Panel], geo: Geo | None
) -> tuple[pd.DataFrame, Workspace | None]:
    """Restore the trained model, call the model's prediction code, and check what it returns.

    Raises:
        RunnerFailed: It raised an exception.
        ScriptFailed: Its command failed; what it left is kept as a failed artifact.
        InvalidPrediction: It returned something else than one finite forecast per place and period.
    """
    historic, future = inputs
    with tempfile.TemporaryDirectory(prefix="chapkit-flows-") as folder:
        trained = await run_apart(_load_trained, session, training.artifact, Path(folder))
        began = time.perf_counter()
        mask = Mask(config)
        async with showing_progress(session, "predict_seconds", mask):
            returned = await _call_kept(
                session,
                ("on_predict", "prediction_workspace"),
                lambda runner: runner.on_predict(config, trained, _own(historic), _own(future), geo),
                mask,
            )
    session.metrics["predict_seconds"] = time.perf_counter() - began
    return await asyncio.to_thread(_read_predictions, session, returned, future)


def _load_trained(session: RunSession, artifact: ArtifactRef, folder: Path) -> Any:
    """Restore the trained model. Of all that this package does, only this may unpickle."""
    settings = ChapkitFlowsSettings()
    return load(
        session.resources.store,
        artifact,
        folder=folder,
        namespace=session.model.definition.namespace,
        allow_pickle=settings.allow_pickle,
        max_bytes=settings.max_load_bytes,
    )


def _read_predictions(session: RunSession, returned: Any, future: Panel) -> tuple[pd.DataFrame, Workspace | None]:
    workspace = returned.workspace if isinstance(returned, ShellPrediction) else None
    try:
        return read_predictions(returned, future), workspace
    except ChapkitFlowsError as error:
        if workspace is None:
            raise
        left = _keep_failed(session, workspace, "prediction_workspace")
        raise InvalidPrediction(f"{error}\n{left}") from error


@step("store the prediction")
async def store_prediction(
    session: RunSession, predictions: pd.DataFrame, workspace: Workspace | None, inputs: tuple[Panel, Panel]
) -> Forecast:
    """Put the prediction, its plot and the workspace that the command left into the store; return what to show."""
    historic, future = inputs
    facts = {"model": session.model.name} | {
        name: value for name, value in future.profile().items() if name in ("rows", "places", "first", "last")
    }
    facts |= {"columns": len(predictions.columns) - 2, "target": session.model.target}
    put = partial(_store, session)
    session.produced("prediction", await run_apart(put, predictions, kind="prediction", metadata=facts))
    if workspace is not None:
        left = session.model.runner.describe(workspace)
        session.produced("workspace", await run_apart(put, workspace, kind="prediction_workspace", metadata=left))
    spec = forecast_spec(historic.frame, predictions, target=session.model.target, start_of=period_start)
    picture = await asyncio.to_thread(render_png, spec)
    session.produced("plot", await run_apart(_store_picture, session, picture))
    get_run_logger().info("Stored the prediction: %s", profile_line(future.profile()))
    return Forecast(
        picture=picture,
        numbers=quantile_table(predictions),
        places=predictions["location"].nunique(),
        is_point=facts["columns"] == 1,
    )


@step("record the run")
async def record(session: RunSession) -> RunFact:
    """Record in one transaction what the run consumed and produced."""
    return await session.complete()


@step("publish the summary", retries=2, retry_delay_seconds=2)
async def publish(session: RunSession, *, parent: RunFact | None = None, forecast: Forecast | None = None) -> None:
    """Show in the Prefect UI what was made from what."""
    stale = await asyncio.to_thread(_stale_inputs, session)
    await publish_summary(session.fact, parent=parent, forecast=forecast, stale=stale)


def _stale_inputs(session: RunSession) -> Mapping[str, Sequence[Newer]]:
    """Why inputs are stale, by their ids. What the run has just read from its URI is not, and so not asked about."""
    read = {(reading.role, reading.artifact_id) for reading in session.fact.readings}
    given = [edge.artifact.id for edge in session.fact.inputs if (edge.role, edge.artifact.id) not in read]
    return stale_reasons(session.resources.database, given) if given else {}


async def call_model(
    runner: BaseModelRunner, name: str, method: Callable[[BaseModelRunner], T | Awaitable[T]], mask: Mask
) -> T:
    """Call the model's own code in a worker thread, and say where in it an exception came from; secrets masked."""

    async def work() -> T:
        async with initialised(runner):
            return await settle(method(runner))

    try:
        return await run_in_worker(work)
    except ChapkitFlowsError:
        raise
    except Exception as error:
        # The model's code is the user's: it can fail in any way.
        message = describe_failure(name, error, mask)
        if log_masked(error, mask):
            raise RunnerFailed(message) from None  # Prefect would log the causes, which repeat a secret
        raise RunnerFailed(message) from error


async def _call_kept(
    session: RunSession, what: tuple[str, Kind], method: Callable[[BaseModelRunner], Any], mask: Mask
) -> Any:
    """Call the model's own code; what a failed command left becomes a failed artifact."""
    name, kind = what
    try:
        return await call_model(session.model.runner, name, method, mask)
    except ScriptFailed as failure:
        left = await asyncio.to_thread(_keep_failed, session, failure.workspace, kind)
        raise ScriptFailed(f"{failure}\n{left}", workspace=failure.workspace) from failure
    except (asyncio.CancelledError, TerminationSignal) as stop:
        # Not in a thread, for which nobody would wait.
        if isinstance(stop.__cause__, ScriptFailed):
            stop.add_note(_keep_failed(session, stop.__cause__.workspace, kind))
        raise


def _keep_failed(session: RunSession, workspace: Workspace, kind: Kind) -> str:
    """Keep what a failed command left, and say where; if it cannot be kept, that must not hide why it failed."""
    facts = {"model": session.model.name, **session.model.runner.describe(workspace)}
    try:
        artifact = _store(session, workspace, kind=kind, metadata=facts, failed=True)
    except ArtifactError as error:
        return f"What it left could not be kept: {error}"
    session.produced("failed_workspace", artifact)
    return f"What it left is kept: chapkit-flows artifacts download {artifact.id}"


def _store(
    session: RunSession, value: Any, *, kind: Kind, metadata: Mapping[str, Any], failed: bool = False
) -> ArtifactRef:
    saved = save(session.resources.store, value, namespace=session.model.definition.namespace)
    return ArtifactRef(
        id=new_id(),
        kind=kind,
        level=_LEVELS[kind],
        digest=saved.digest,
        size=saved.size,
        media_type=saved.media_type,
        codec=saved.codec,
        status="failed" if failed else "ok",
        metadata=metadata,
    )


def _store_picture(session: RunSession, picture: bytes) -> ArtifactRef:
    stored = session.resources.store.put(BytesIO(picture))
    return ArtifactRef(
        id=new_id(),
        kind="plot",
        digest=stored.digest,
        size=stored.size,
        media_type="image/png",
        metadata={"name": "forecast.png"},
    )
