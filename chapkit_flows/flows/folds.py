"""One fold of a backtest: it takes references and leaves its forecast in the store, so any process may do it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from chapkit_flows import __version__
from chapkit_flows.artifacts.codecs import Saved, load, save
from chapkit_flows.artifacts.manifests import FOLDS
from chapkit_flows.artifacts.store import Store
from chapkit_flows.artifacts.trees import MEDIA_TYPE as TREE
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.secrets import restore_secrets, reveal
from chapkit_flows.configs.versions import config_version, restore_config
from chapkit_flows.data.geo import read_geo
from chapkit_flows.data.panels import check_panel
from chapkit_flows.data.periods import season_of
from chapkit_flows.data.tables import read_table
from chapkit_flows.errors import DigestMismatch, EvaluationError, ObjectMissing, ValidationFailed
from chapkit_flows.evaluation.covariates import FutureCovariates, future_covariates
from chapkit_flows.evaluation.splits import Split
from chapkit_flows.evaluation.vintages import complete_known
from chapkit_flows.flows.predictions import read_predictions
from chapkit_flows.flows.steps import call_model
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.discovery import load_model
from chapkit_flows.models.masking import Mask
from chapkit_flows.models.runner import Geo
from chapkit_flows.refs import ArtifactRef, ConfigRef, canonical_json, digest_of, new_id
from chapkit_flows.resources import open_artifacts
from chapkit_flows.settings import ChapkitFlowsSettings

_REMEDY = "Give workers the settings of the flow: PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_STORAGE_URL."


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldOrder:
    """All that a process needs to do a fold.

    Attributes:
        model: Its entrypoint; the model itself for a fold that is done in the same process.
        config: With the horizon of the backtest; its version for a fold that is done in another process.
        data: The dataset, in the store.
        geo: The polygons, in the store.
        identity: What the forecast depends on, beside the split: digests of config, code and contract.
        split: Which periods to forecast from which origin.
        learn: The periods to train on; those of the first split where a model is trained once.
        covariates: What stands for the weather ahead.
        trained: A model that is in the store already.
        is_vintage: Whether the dataset is what was known at the origin: then nothing else is looked at, and it need
            not reach the origin everywhere.
        label: Before the name of the task, where several configs have folds.
    """

    model: ModelContract | str
    config: ModelConfig | ConfigRef
    data: ArtifactRef
    geo: ArtifactRef | None
    identity: Mapping[str, Any]
    split: Split
    learn: tuple[str, ...]
    covariates: FutureCovariates
    trained: Saved | None = None
    is_vintage: bool = False
    label: str = ""

    def key(self, what: str) -> str:
        """The name of this piece of work: equal orders have equal names."""
        content = {
            "what": what,
            "data": self.data.digest,
            "geo": self.geo.digest if self.geo else None,
            "learn": self.learn,
            "trained": self.trained.digest if self.trained else None,
            **self.identity,
        }
        if self.is_vintage:
            content |= {"vintage": True, "covariates": self.covariates, "known": self.split.train_periods}
        if what == "forecast":
            content |= {
                "periods": self.split.test_periods,
                "known": self.split.train_periods,
                "covariates": self.covariates,
            }
        return digest_of(canonical_json(content)).removeprefix("sha256:")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldSources:
    """From which dataset each fold is done, where that is not the one that the run was given.

    Attributes:
        datasets: One per fold, in their order.
        are_vintages: Whether each is what was known at the origin.
        truth: What the scores depend on beside the forecasts, as JSON.
    """

    datasets: tuple[ArtifactRef, ...]
    are_vintages: bool
    truth: Mapping[str, Any]

    def of(self, order: FoldOrder) -> FoldOrder:
        """The order of a fold, from its dataset."""
        return replace(order, data=self.datasets[order.split.number], is_vintage=self.are_vintages)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldForecast:
    """A fold that is done.

    Attributes:
        key: The name of the order.
        reused: Whether an earlier backtest did it.
        seconds: What the model's own code took.
    """

    split: Split
    key: str
    saved: Saved
    reused: bool
    seconds: float


@task(
    name="forecast a fold",
    task_run_name="{order.label}fold {order.split.number}: from {order.split.origin}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def forecast_fold(order: FoldOrder) -> FoldForecast:
    """Train on what was known at the origin, forecast what came after it, and keep the forecast in the store.

    Raises:
        ChapkitFlowsError: The model failed, or gave no forecast that can be scored.
    """
    done = do_fold(open_artifacts(ChapkitFlowsSettings()), order)
    verb = "reused" if done.reused else "made"
    text = f"{order.label}{verb} the forecast from {order.split.origin}"
    get_run_logger().info(text[0].upper() + text[1:])
    return done


def do_fold(store: Store, order: FoldOrder) -> FoldForecast:
    """What the task does, in this thread and unseen by Prefect: for folds that cost less than a task.

    Raises:
        ChapkitFlowsError: The model failed, or gave no forecast that can be scored.
    """
    key = order.key("forecast")
    saved, seconds, reused = once(store, f"{FOLDS}/{key}", lambda: _forecast(store, order))
    return FoldForecast(split=order.split, key=key, saved=saved, reused=reused, seconds=seconds)


def identify(model: ModelContract, config: ModelConfig) -> dict[str, Any]:
    """What the forecasts of a model depend on, beside data and split: digests of config, code and contract."""
    code = model.code_version
    return {
        "model": model.name,
        "contract": model.digest,
        "config": config_version(config).digest,
        "code": [code.git_commit, code.patch_digest, code.source_digest],
    }


@task(
    name="fit for folds",
    task_run_name="{order.label}fit up to {order.split.origin}",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fit_for_folds(order: FoldOrder) -> Saved:
    """Train, or go on training `order.trained`, with the periods to learn from; keep the model in the store.

    Raises:
        ChapkitFlowsError: The model failed.
    """
    store = open_artifacts(ChapkitFlowsSettings())
    return once(store, f"{FOLDS}/{order.key('fit')}", lambda: _fit(store, order))[0]


def find_forecast(store: Store, order: FoldOrder) -> FoldForecast | None:
    """The forecast of a fold that was done before; None if it must be done."""
    key = order.key("forecast")
    known = find_done(store, f"{FOLDS}/{key}")
    if known is None:
        return None
    return FoldForecast(split=order.split, key=key, saved=known[0], reused=True, seconds=known[1])


def check_kept(store: Store, done: FoldForecast) -> FoldForecast | EvaluationError:
    """The same; an error if the process that did the fold has kept the forecast elsewhere."""
    if _is_stored(store, done.saved):
        return done
    return EvaluationError(
        f"The forecast is not in the store of the flow, {store.url}: the worker that did the fold uses another. "
        f"{_REMEDY}"
    )


def find_fit(store: Store, order: FoldOrder) -> Saved | None:
    """The model that was trained before as an order says; None if it must be trained."""
    return find_saved(store, f"{FOLDS}/{order.key('fit')}")


def find_done(store: Store, name: str) -> tuple[Saved, float] | None:
    """What a piece of work made, and how long it took; None if it must be done."""
    try:
        document = store.read_manifest(name)
        saved = Saved(**document["saved"])
        return (saved, float(document["seconds"])) if _is_stored(store, saved) else None
    except (ObjectMissing, DigestMismatch, KeyError, TypeError):
        return None  # it was not done yet, or its traces are damaged


def once(store: Store, name: str, work: Callable[[], tuple[Saved, float]]) -> tuple[Saved, float, bool]:
    """Do a piece of work unless its result is in the store; the manifest is written after the bytes."""
    known = find_done(store, name)
    if known is not None:
        return (*known, True)
    saved, seconds = work()
    keep_done(store, name, saved, seconds)
    return saved, seconds, False


def keep_done(store: Store, name: str, saved: Saved, seconds: float) -> None:
    """Write down that a piece of work is done, once its result is in the store."""
    store.write_manifest(name, {"saved": asdict(saved), "seconds": seconds})


def work_name(what: str, content: Mapping[str, Any]) -> str:
    """The name of a piece of work that follows from a content alone, and from how this version does it."""
    named = {"what": what, "version": __version__, **content}
    return f"{FOLDS}/{digest_of(canonical_json(named)).removeprefix('sha256:')}"


def digest_of_rows(frame: pd.DataFrame) -> str:
    """Of the values of a table: the truth may be that of other data than a run was given."""
    return digest_of(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())


def find_saved(store: Store, name: str) -> Saved | None:
    """What a piece of work has left; None if it must be done."""
    known = find_done(store, name)
    return None if known is None else known[0]


def _is_stored(store: Store, saved: Saved) -> bool:
    if saved.media_type == TREE:
        if not store.renew(saved.digest):
            return False
        return all(store.claim(entry.digest, entry.size) for entry in list_tree(store, saved.digest))
    return store.claim(saved.digest, saved.size)


def _forecast(store: Store, order: FoldOrder) -> tuple[Saved, float]:
    return asyncio.run(_forecast_here(store, order))


async def _forecast_here(store: Store, order: FoldOrder) -> tuple[Saved, float]:
    model, config = await _open(order.model, order.config)
    frame, geo = _read_inputs(store, order, model.covariates(config), model.target)
    historic, ahead = _cut(order, frame, model.covariates(config))
    future, findings = check_panel(ahead, role="future", required=(), target=None)
    if future is None:
        raise ValidationFailed(findings)
    with TemporaryDirectory(prefix="chapkit-flows-") as folder:
        began = time.perf_counter()
        trained = await _trained(store, order, (model, config), historic, Path(folder))
        returned = await call_model(
            model.runner,
            "on_predict",
            lambda runner: runner.on_predict(config, trained, historic, future.frame.copy(deep=False), geo),
            Mask(config),
        )
        seconds = time.perf_counter() - began
        return save(store, read_predictions(returned, future), codec="parquet"), seconds


def _cut(order: FoldOrder, frame: pd.DataFrame, covariates: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows up to the origin, and those to forecast, with what stands for their covariates."""
    names = [name for name in covariates if name in frame.columns]
    if order.is_vintage:
        return complete_known(frame, order.split, names, method=order.covariates, season_of=season_of)
    historic = order.split.training(frame)
    testing = order.split.testing(frame)
    return historic, future_covariates(historic, testing, names, method=order.covariates, season_of=season_of)


def _fit(store: Store, order: FoldOrder) -> tuple[Saved, float]:
    return asyncio.run(_fit_here(store, order))


async def _fit_here(store: Store, order: FoldOrder) -> tuple[Saved, float]:
    model, config = await _open(order.model, order.config)
    frame, _ = _read_inputs(store, order, model.covariates(config), model.target)
    historic = _cut(order, frame, model.covariates(config))[0] if order.is_vintage else order.split.training(frame)
    with TemporaryDirectory(prefix="chapkit-flows-") as folder:
        began = time.perf_counter()
        is_update = order.trained is not None
        trained = await _trained(store, order, (model, config), historic, Path(folder), is_update=is_update)
        return save(store, trained, namespace=model.definition.namespace), time.perf_counter() - began


async def _trained(
    store: Store,
    order: FoldOrder,
    pair: tuple[ModelContract, ModelConfig],
    historic: pd.DataFrame,
    folder: Path,
    *,
    is_update: bool = False,
) -> Any:
    """The model to forecast with: trained here, taken from the store, or gone on with."""
    model, config = pair
    rows = historic[historic["time_period"].isin(order.learn)].reset_index(drop=True)
    _, geo = _read_inputs(store, order, model.covariates(config), model.target)
    if order.trained is None:
        return await call_model(
            model.runner, "on_train", lambda runner: runner.on_train(config, rows, geo), Mask(config)
        )
    known = load(
        store,
        _artifact_of(order.trained),
        folder=folder,
        namespace=model.definition.namespace,
        allow_pickle=ChapkitFlowsSettings().allow_pickle,
        max_bytes=ChapkitFlowsSettings().max_load_bytes,
    )
    if not is_update:
        return known
    return await call_model(
        model.runner, "on_update", lambda runner: runner.on_update(config, known, rows, geo), Mask(config)
    )


def _artifact_of(saved: Saved) -> ArtifactRef:
    return ArtifactRef(id=new_id(), kind="training_workspace", **asdict(saved))


def open_model(given: ModelContract | str, config: ModelConfig | ConfigRef) -> tuple[ModelContract, ModelConfig]:
    """The model, and its config with the values that its references lead to: they are nowhere but in this process."""
    return asyncio.run(_open(given, config))


async def _open(given: ModelContract | str, config: ModelConfig | ConfigRef) -> tuple[ModelContract, ModelConfig]:
    model = load_model(given) if isinstance(given, str) else given
    return model, await _config_of(model, config)


async def _config_of(model: ModelContract, config: ModelConfig | ConfigRef) -> ModelConfig:
    if not isinstance(config, ModelConfig):
        assert issubclass(model.config, ModelConfig)
        config = await restore_secrets(restore_config(config, model.config), config)
    found = await reveal(config)
    if found.findings:
        raise ValidationFailed(found.findings)
    return found.config


def _read_inputs(
    store: Store, order: FoldOrder, required: tuple[str, ...], target: str
) -> tuple[pd.DataFrame, Geo | None]:
    return read_dataset(store, order.data.digest, order.data.media_type, (*required, target)), (
        read_polygons(store, order.geo.digest) if order.geo else None
    )


# Folds that are done in one process read the same table: it is parsed once, and no fold may change it.
@lru_cache(maxsize=2)
def read_dataset(store: Store, digest: str, media_type: str, numeric: tuple[str, ...]) -> pd.DataFrame:
    """A dataset from the store, checked as it was when it came.

    Raises:
        ObjectMissing: The flow has put it into another store.
    """
    try:
        with store.open(digest) as file:
            frame = read_table(file, media_type=media_type, numeric=numeric, name="data")
    except ObjectMissing as error:
        raise ObjectMissing(
            "The data of this fold is not where the flow has put it: the worker that did it uses the store "
            f"{store.url}. {_REMEDY}"
        ) from error
    panel, findings = check_panel(frame, role="data", required=(), target=None)
    if panel is None:
        raise ValidationFailed(findings)
    return panel.frame


@lru_cache(maxsize=2)
def read_polygons(store: Store, digest: str) -> Geo:
    """Polygons from the store."""
    with store.open(digest) as file:
        return read_geo(file.read(), name="geo")
