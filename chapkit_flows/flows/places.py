"""Training for each place: in chunks, by the flow's task runner, and only for those that are new or have changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from chapkit_flows.artifacts.codecs import Saved, save
from chapkit_flows.artifacts.manifests import PLACES
from chapkit_flows.artifacts.store import Store
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import config_version
from chapkit_flows.data.panels import Panel
from chapkit_flows.errors import ChapkitFlowsError, InvalidModel, PlacesFailed
from chapkit_flows.flows import steps
from chapkit_flows.flows.backtest import artifact_of
from chapkit_flows.flows.fan_out import fan_out
from chapkit_flows.flows.folds import (
    REMEDY,
    find_done,
    find_saved,
    identify,
    keep_done,
    open_model,
    read_dataset,
    read_polygons,
)
from chapkit_flows.flows.progress import showing_progress
from chapkit_flows.flows.runners import is_here
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.summary import publish_diagnostics
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.masking import Mask
from chapkit_flows.models.places import PerPlaceRunner, PlaceFit, raise_failed
from chapkit_flows.models.runner import Geo
from chapkit_flows.places import PlaceModels
from chapkit_flows.refs import ArtifactRef, ConfigRef, Diagnostic, canonical_json, digest_of
from chapkit_flows.resources import open_artifacts
from chapkit_flows.settings import ChapkitFlowsSettings

# A chunk is one task. Few enough that tasks cost little, more than there are workers, so that none is idle long.
_CHUNKS_PER_WORKER = 4
_CHUNKS_ON_A_CLUSTER = 32
_THREADS = 8
_ELSEWHERE = "The model is not in the store of the flow: the worker that trained it uses another."


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkOrder:
    """All that a process needs to train for some places.

    Attributes:
        model: Its entrypoint; the model itself for a chunk that is done in the same process.
        config: Its version for a chunk that is done in another process.
        data: The dataset, in the store.
        geo: The polygons, in the store.
        names: By place the name of the manifest that says that it is done.
    """

    model: ModelContract | str
    config: ModelConfig | ConfigRef
    data: ArtifactRef
    geo: ArtifactRef | None
    names: Mapping[str, str]

    @property
    def label(self) -> str:
        """The places, for people."""
        first, *others = self.names
        return f"{first} and {len(others)} more" if others else first


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedPlace:
    """What came of training for a place.

    Attributes:
        saved: The trained model; None if it failed.
        reason: Why it failed.
        left: The folder that a command which failed has left.
    """

    place: str
    seconds: float
    saved: Saved | None = None
    reason: str = ""
    left: Saved | None = None


@dataclass(slots=True, kw_only=True)
class _Outcome:
    trained: dict[str, Saved] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[Saved] = field(default_factory=list)
    reused: int = 0


async def fit_model(session: RunSession, configs: tuple[ModelConfig, ModelConfig], data: Panel, geo: Geo | None) -> Any:
    """Train, as the contract of the model says: with all places at once, or for each place.

    Args:
        configs: The config as it is saved, and with the values that its references lead to.
    """
    settings, revealed = configs
    if session.model.per_place:
        return await fit_places(session, settings, data)
    return await steps.fit(session, revealed, data, geo)


async def fit_places(session: RunSession, config: ModelConfig, data: Panel) -> PlaceModels:
    """Have a model trained for each place that was not trained before with the same rows, config and code.

    Raises:
        PlacesFailed: For some places there is none; those that were trained are not trained again.
    """
    began = time.perf_counter()
    async with showing_progress(session, "fit_seconds", Mask(config)):
        # Task runners are spoken to in blocking calls.
        done = await asyncio.to_thread(_fit_all, session, config, data)
    for left in done.left:
        failed = replace(artifact_of(left, "training_workspace"), level=0, status="failed")
        session.produced("failed_workspace", failed)
    log = get_run_logger()
    told = (session.model.name, len(done.trained) - done.reused, len(data.locations), done.reused)
    log.info("Fitted %s for %d of %d places; %d are as they were trained before", *told)
    try:
        raise_failed(done.failed, len(data.locations))
    except PlacesFailed:
        findings = [Diagnostic.error("place_failed", f"{one}: {why}", "data") for one, why in done.failed.items()]
        await publish_diagnostics(session.model.name, findings)
        raise
    session.metrics |= {"places": float(len(done.trained)), "reused_places": float(done.reused)}
    session.metrics["fit_seconds"] = time.perf_counter() - began
    return PlaceModels(done.trained)


@task(
    name="fit places",
    task_run_name="fit {order.label}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fit_chunk(order: ChunkOrder) -> list[TrainedPlace]:
    """Train for some places, and keep each model in the store as soon as there is one.

    Raises:
        ChapkitFlowsError: The inputs cannot be read, or a model cannot be kept.
    """
    store = open_artifacts(ChapkitFlowsSettings())
    model, config = open_model(order.model, order.config)
    frame = read_dataset(store, order.data.digest, order.data.media_type, (*model.covariates(config), model.target))
    geo = read_polygons(store, order.geo.digest) if order.geo else None
    # A task that is done again, since its process was killed, goes on where it was.
    done = [
        TrainedPlace(place=place, seconds=found[1], saved=found[0])
        for place, name in order.names.items()
        if (found := find_done(store, name)) is not None
    ]
    rows = frame[frame["location"].isin(set(order.names) - {one.place for one in done})]

    async def fit_rest(runner: Any) -> list[TrainedPlace]:
        assert isinstance(runner, PerPlaceRunner)
        return [_keep(store, model, order.names, one) async for one in runner.fit_each(config, rows, geo)]

    done += asyncio.run(steps.call_model(model.runner, "on_train", fit_rest, Mask(config)))
    seconds = sum(one.seconds for one in done)
    get_run_logger().info("Fitted %d places in %.1f s: %s", len(done), seconds, order.label)
    return done


def _keep(store: Store, model: ModelContract, names: Mapping[str, str], fit: PlaceFit) -> TrainedPlace:
    """Put a trained model into the store; or what a command that failed has left."""
    if fit.reason:
        left = save(store, fit.workspace) if fit.workspace is not None else None
        return TrainedPlace(place=fit.place, seconds=fit.seconds, reason=fit.reason, left=left)
    saved = save(store, fit.model, namespace=model.definition.namespace)
    keep_done(store, names[fit.place], saved, fit.seconds)
    return TrainedPlace(place=fit.place, seconds=fit.seconds, saved=saved)


def _fit_all(session: RunSession, config: ModelConfig, data: Panel) -> _Outcome:
    store, names = session.resources.store, _names(session, config, data)
    found = _find_trained(store, names)
    outcome = _Outcome(trained=dict(found), reused=len(found))
    orders = _orders(session, config, {place: name for place, name in names.items() if place not in found})
    done: list[list[TrainedPlace] | ChapkitFlowsError] = fan_out(fit_chunk, orders, lambda _: None)
    for order, fitted in zip(orders, done, strict=True):
        if isinstance(fitted, ChapkitFlowsError):
            # A process that was killed has trained for some of them before.
            kept = _find_trained(store, order.names)
            outcome.trained |= kept
            outcome.failed |= {place: str(fitted) for place in order.names if place not in kept}
            continue
        trained = {one.place: one.saved for one in fitted if one.saved is not None}
        # Another process may have a store of its own, and the model of all places would name bytes that are not here.
        kept = trained if is_here() else _find_trained(store, {place: names[place] for place in trained})
        outcome.trained |= kept
        outcome.failed |= {one.place: one.reason or f"{_ELSEWHERE} {REMEDY}" for one in fitted if one.place not in kept}
        outcome.left += [one.left for one in fitted if one.left is not None]
    outcome.failed = dict(sorted(outcome.failed.items()))
    return outcome


def _find_trained(store: Store, names: Mapping[str, str]) -> dict[str, Saved]:
    """Of some places, each with the name of its piece of work, the models that are in the store."""
    with ThreadPoolExecutor(_THREADS) as pool:
        found = zip(names, pool.map(lambda name: find_saved(store, name), names.values()), strict=True)
        return {place: saved for place, saved in found if saved is not None}


def _orders(session: RunSession, config: ModelConfig, names: Mapping[str, str]) -> list[ChunkOrder]:
    """The places in chunks; neighbours, which may be alike in size, go into different ones."""
    model, settings = session.model, ChapkitFlowsSettings()
    given = {edge.role: edge.artifact for edge in session.inputs}
    here = is_here()
    if not here and model.entrypoint is None:
        raise InvalidModel(
            f"The model {model.name} stands in no file, so that no other process can load it. "
            "Write it to a file, or set task_runner to threads."
        )
    several = _CHUNKS_ON_A_CLUSTER if settings.cluster_address else _CHUNKS_PER_WORKER * settings.task_runner_workers
    places = list(names)
    count = min(len(places), several)
    return [
        ChunkOrder(
            model=model if here else str(model.entrypoint),
            config=config if here else config_version(config),
            data=given["data"],
            geo=given.get("geo"),
            names={place: names[place] for place in places[start::count]},
        )
        for start in range(count)
    ]


def _names(session: RunSession, config: ModelConfig, data: Panel) -> dict[str, str]:
    """By place the name of its piece of work: with the same rows, polygons, config and code it is the same."""
    geo = next((edge.artifact.digest for edge in session.inputs if edge.role == "geo"), None)
    common = {"what": "place", "geo": geo, **identify(session.model, config)}
    rows = digest_rows(data.frame)
    return {
        place: f"{PLACES}/{digest_of(canonical_json(common | {'place': place, 'rows': rows[place]}))[7:]}"
        for place in data.locations
    }


def digest_rows(frame: pd.DataFrame) -> dict[str, str]:
    """The digest of the rows of each place. Whether numbers are whole depends on all places, and so counts for none."""
    numbers = frame.select_dtypes("number").columns
    plain = frame.astype({str(column): "float64" for column in numbers})
    columns: Sequence[str] = [str(column) for column in frame.columns]
    hashes = pd.util.hash_pandas_object(plain, index=False)
    head = canonical_json(columns)
    return {
        str(place): digest_of(head + rows.to_numpy().tobytes())
        for place, rows in hashes.groupby(frame["location"], sort=True)
    }
