"""The flow that says how good a model is: forecasts from past origins, scored with what came after."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from chapkit_flows.artifacts.codecs import Saved, load, save
from chapkit_flows.artifacts.trees import MEDIA_TYPE, TreeEntry, put_listing
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import config_version, with_horizon
from chapkit_flows.data.panels import Panel
from chapkit_flows.data.periods import season_of
from chapkit_flows.errors import BacktestFailed, ChapkitFlowsError, EvaluationError, ValidationFailed
from chapkit_flows.evaluation.covariates import FutureCovariates
from chapkit_flows.evaluation.metrics import METRICS
from chapkit_flows.evaluation.scores import learn_yardstick, score_split, summarise
from chapkit_flows.evaluation.splits import Split, SplitPlan, Strategy, Window, check_truth, rolling_origins
from chapkit_flows.flows import steps
from chapkit_flows.flows.check import errors_first, has_errors, resolve_horizon
from chapkit_flows.flows.evaluations import publish_backtest
from chapkit_flows.flows.fold_groups import begin_folds
from chapkit_flows.flows.folds import (
    FoldForecast,
    FoldOrder,
    FoldSources,
    digest_of_rows,
    find_saved,
    identify,
    once,
    work_name,
)
from chapkit_flows.flows.pictures import draw_pictures, read_shown
from chapkit_flows.flows.results import BacktestResult
from chapkit_flows.flows.runners import is_here
from chapkit_flows.flows.secrets import with_secrets
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.skill import BASELINES, Baseline, score_baselines
from chapkit_flows.flows.vintages import VintagePlan, Vintages, find_known, keep_optimism, load_series
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.refs import ArtifactRef, Diagnostic, new_id

_COUNTS = ("folds", "reused_folds", "failed_folds")
# In the schema only: the run form refuses other numbers, and in Python `cut` says which one is wrong.
_POSITIVE: JsonDict = {"minimum": 1}


class BacktestPlan(BaseModel):
    """How a model is tried: which past origins it forecasts from, and what it may learn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    periods: int | None = Field(
        default=None, json_schema_extra=_POSITIVE, description="How many periods ahead; default: the config's."
    )
    splits: int = Field(
        default=4,
        json_schema_extra=_POSITIVE,
        description="How many origins; the last one forecasts the last periods of the data.",
    )
    stride: int = Field(default=1, json_schema_extra=_POSITIVE, description="Periods from one origin to the next.")
    strategy: Strategy = Field(
        default="refit", description="Train anew at each origin, once at the first, or go on training (update)."
    )
    covariates: FutureCovariates = Field(
        default="climatology",
        description="What stands for the weather ahead: the mean of place and season, the last value known "
        "(persistence), or what was observed later, which no forecast can have.",
    )
    window: Window = Field(
        default="expanding", description="Learn from all periods up to the origin, or from the last ones (sliding)."
    )
    window_length: int | None = Field(
        default=None,
        json_schema_extra=_POSITIVE,
        description="Periods of a sliding window; of an expanding one the fewest for the first fold.",
    )
    baselines: tuple[Baseline, ...] = Field(
        default=BASELINES, description="Which baselines to score on the same folds, to tell the skill against them."
    )
    pictures: bool = Field(default=True, description="Draw forecasts, calibration, scores by horizon and skill.")

    def cut(self, horizon: int) -> SplitPlan:
        """How to cut a panel into splits.

        Raises:
            EvaluationError: A number is below 1, or a sliding window has no length.
        """
        return SplitPlan(
            n_periods=horizon,
            n_splits=self.splits,
            stride=self.stride,
            window=self.window,
            window_length=self.window_length,
        )


def check_vintage_plan(plan: BacktestPlan, vintages: VintagePlan) -> None:
    """See that a backtest can be done with nothing but what was known.

    Raises:
        EvaluationError: A number of days is negative; or the covariates are to be those that were observed later.
    """
    vintages.check()
    if plan.covariates == "observed":
        raise EvaluationError(
            "With vintages a forecast may use only what was known at its origin, and the covariates that were observed "
            "later were not. Use climatology or persistence."
        )


async def backtest(
    model: ModelContract,
    config: ModelConfig,
    data: str,
    geo: str | None = None,
    *,
    plan: BacktestPlan,
    vintages: VintagePlan | None = None,
) -> BacktestResult:
    """Load and fingerprint the data, validate, forecast each fold, score, record, publish."""
    horizon = resolve_horizon(config, plan.periods)
    cuts = plan.cut(horizon)
    if vintages is not None:
        check_vintage_plan(plan, vintages)
    parameters = {"data": data, "geo": geo, **plan.model_dump(mode="json"), "periods": horizon}
    parameters["vintages"] = vintages and vintages.model_dump(mode="json")
    async with RunSession(model, "backtest", parameters, config=config) as run:
        if not run.done:
            settings = with_horizon(config, horizon)
            revealed = await with_secrets(model.name, settings)
            series = await load_series(run, data, config=settings) if vintages is not None else None
            table = series.latest if series else await steps.load_data(run, data, role="data", config=settings)
            polygons = await steps.load_geo(run, geo) if geo else None
            panel = await steps.validate_training(run, revealed, table, polygons)
            splits = await check_backtest(run, cuts, plan.strategy, panel)
            known = await find_known(run, series, panel, splits, plan=vintages) if series and vintages else None
            truth, sources = (known.truth, known.sources) if known else (panel, None)
            forecasts = await forecast_folds(run, settings, plan, splits, sources)
            await score_folds(run, truth, splits, forecasts)
            if known is not None:
                await score_revised(run, settings, plan, splits, known)
            await score_baselines(run, horizon, (truth, splits), plan.baselines, sources)
            if plan.pictures:
                await draw_pictures(run, panel, polygons)
            await steps.record(run)
        await publish_backtest(run.fact, await asyncio.to_thread(read_shown, run.resources.store, run.fact))
        return _result(run.fact)


@steps.step("check the splits")
async def check_backtest(session: RunSession, cuts: SplitPlan, strategy: Strategy, data: Panel) -> tuple[Split, ...]:
    """Cut the panel into splits, and see that there is something to score each with.

    Raises:
        TooFewPeriods: There are fewer periods than the plan needs.
        ValidationFailed: There is no truth; or the model cannot be updated.
    """
    splits = rolling_origins(data.periods, cuts)
    findings = list(check_truth(data.frame, splits, target=session.model.target))
    if strategy == "update" and not session.model.runner.can_update:
        message = f"The runner of {session.model.name} has no on_update. Give it one, or use the strategy refit."
        findings.append(Diagnostic.error("cannot_update", message, "strategy"))
    log = get_run_logger()
    for found in findings:
        log.warning("%s: %s", found.code, found.message)
    if has_errors(findings):
        raise ValidationFailed(errors_first(findings))
    return splits


async def forecast_folds(
    session: RunSession,
    config: ModelConfig,
    plan: BacktestPlan,
    splits: Sequence[Split],
    sources: FoldSources | None = None,
) -> list[FoldForecast | ChapkitFlowsError]:
    """Have each fold done by the flow's task runner; a fold that fails is an error in its place.

    Raises:
        BacktestFailed: No fold could be done.
    """
    orders = [order_fold(session, config, plan, split) for split in splits]
    if sources is not None:
        orders = [sources.of(order) for order in orders]

    def forecast_all() -> list[FoldForecast | ChapkitFlowsError]:
        (begun,) = begin_folds(session.resources.store, [orders], plan.strategy)
        return begun.finish()

    # Task runners are spoken to in blocking calls.
    done = await asyncio.to_thread(forecast_all)
    if all(isinstance(one, ChapkitFlowsError) for one in done):
        raise BacktestFailed(f"None of the {len(done)} folds could be done. The first one: {done[0]}")
    return done


def order_fold(session: RunSession, config: ModelConfig, plan: BacktestPlan, split: Split) -> FoldOrder:
    """What a process needs to do a fold.

    Raises:
        EvaluationError: Another process is to do it, and could not load the model.
    """
    model = session.model
    given = {edge.role: edge.artifact for edge in session.inputs}
    here = is_here()
    if not here and model.entrypoint is None:
        raise EvaluationError(
            f"The model {model.name} stands in no file, so that no other process can load it. "
            "Write it to a file, or set task_runner to threads."
        )
    return FoldOrder(
        model=model if here else str(model.entrypoint),
        config=config if here else config_version(config),
        data=given["data"],
        geo=given.get("geo"),
        identity=identify(model, config),
        split=split,
        learn=split.train_periods,
        covariates=plan.covariates,
    )


@steps.step("score the forecasts")
async def score_folds(
    session: RunSession, data: Panel, splits: Sequence[Split], forecasts: Sequence[FoldForecast | ChapkitFlowsError]
) -> None:
    """Score each forecast with what came after its origin; keep forecasts and scores in the store.

    Raises:
        BacktestFailed: No forecast could be scored.
    """
    scores, failures = await asyncio.to_thread(score_all, session, data, forecasts)
    failures |= _failures(splits, forecasts)
    if not scores:
        raise BacktestFailed(f"No forecast could be scored. {next(iter(failures.values()))}")
    table = pd.concat(scores, ignore_index=True)
    means = summarise(table).set_index("metric")["value"]
    # A forecast of one number has no intervals: what is not defined is left out.
    session.metrics |= {str(name): float(value) for name, value in means.dropna().items()}
    done = [one for one in forecasts if isinstance(one, FoldForecast)]
    counts = (len(splits), sum(one.reused for one in done), len(failures))
    session.metrics |= dict(zip(_COUNTS, map(float, counts), strict=True))
    session.metrics["model_seconds"] = sum(one.seconds for one in done)
    await asyncio.to_thread(_keep, session, table, done, failures)
    log = get_run_logger()
    scored = len(splits) - len(failures)
    log.info("Scored %d folds, %d of them done before: CRPS %.4g", scored, counts[1], means.get("crps", float("nan")))
    for origin, reason in failures.items():
        log.error("The fold from %s failed: %s", origin, reason)


async def score_revised(
    session: RunSession, config: ModelConfig, plan: BacktestPlan, splits: Sequence[Split], known: Vintages
) -> None:
    """Do the same folds on what is known now, and say how much better they look.

    Raises:
        BacktestFailed: No fold could be done.
    """
    get_run_logger().info("The same folds on revised data:")
    forecasts = await forecast_folds(session, config, plan, splits, known.revised)
    tables, failures = await asyncio.to_thread(score_all, session, known.truth, forecasts)
    await keep_optimism(session, known, tables, failures | _failures(splits, forecasts))


def _failures(splits: Sequence[Split], forecasts: Sequence[FoldForecast | ChapkitFlowsError]) -> dict[str, str]:
    """Why folds could not be done, by origin."""
    return {split.origin: str(one) for split, one in zip(splits, forecasts, strict=True) if isinstance(one, Exception)}


def score_all(
    session: RunSession, data: Panel, forecasts: Sequence[FoldForecast | ChapkitFlowsError]
) -> tuple[list[pd.DataFrame], dict[str, str]]:
    """The scores of the folds that can be scored, and by origin why others cannot.

    Of folds that have all been scored together before there is one table, from the store.
    """
    scores, failures = [], {}
    store, target = session.resources.store, session.model.target
    name = _name_of_scores(session, data, forecasts)
    known = find_saved(store, name)
    if known is not None:
        return [load(store, artifact_of(known, "metrics"), allow_pickle=False)], {}
    for one in forecasts:
        if isinstance(one, ChapkitFlowsError):
            continue
        yardstick = learn_yardstick(one.split.training(data.frame), target=target, season_of=season_of)
        try:
            predictions = load(store, artifact_of(one.saved, "prediction"), allow_pickle=False)
            scores.append(score_split(predictions, data.frame, target=target, split=one.split, yardstick=yardstick))
        except EvaluationError as error:
            failures[one.split.origin] = str(error)
    if scores and not failures:
        once(store, name, lambda: (save(store, pd.concat(scores, ignore_index=True)), 0.0))
    return scores, failures


def _name_of_scores(session: RunSession, data: Panel, forecasts: Sequence[FoldForecast | ChapkitFlowsError]) -> str:
    done = [(one.key, one.saved.digest) for one in forecasts if isinstance(one, FoldForecast)]
    metrics = [metric.name for metric in METRICS]
    truth = digest_of_rows(data.frame)
    content = {"folds": done, "metrics": metrics, "target": session.model.target, "truth": truth}
    return work_name("scores of folds", content)


def _keep(
    session: RunSession, scores: pd.DataFrame, forecasts: Sequence[FoldForecast], failures: Mapping[str, str]
) -> None:
    store = session.resources.store
    facts = {"model": session.model.name, "failed": dict(failures)}
    session.produced(
        "scores", replace(artifact_of(save(store, scores), "metrics"), metadata=facts | {"name": "scores"})
    )
    files = [
        TreeEntry(path=f"{one.split.origin}.parquet", digest=one.saved.digest, size=one.saved.size) for one in forecasts
    ]
    tree = put_listing(store, files)
    saved = Saved(digest=tree.digest, size=tree.size, media_type=MEDIA_TYPE, codec="folder")
    origins = {"name": "forecasts", "folds": tree.files}
    session.produced("forecasts", replace(artifact_of(saved, "backtest"), metadata=facts | origins))


def artifact_of(saved: Saved, kind: Any) -> ArtifactRef:
    """A new artifact of bytes that are stored."""
    return ArtifactRef(
        id=new_id(), kind=kind, digest=saved.digest, size=saved.size, media_type=saved.media_type, codec=saved.codec
    )


async def read_scores(session: RunSession) -> pd.DataFrame:
    """The scores of the run, from the store."""

    def read() -> pd.DataFrame:
        scores: pd.DataFrame = load(session.resources.store, session.fact.output("scores"), allow_pickle=False)
        return scores

    return await asyncio.to_thread(read)


def _result(run: RunFact) -> BacktestResult:
    metrics = dict(run.metrics)
    counts = {name: int(metrics.pop(name, 0)) for name in _COUNTS}
    metrics.pop("model_seconds", None)
    revised = run.find_output("revised_scores")
    told = None
    if revised is not None:
        told = run.parameters["vintages"] | {name: revised.metadata[name] for name in ("known", "optimism")}
    return BacktestResult(
        run_id=run.id,
        status=run.status,
        artifact_id=run.output("scores").id,
        flow_run_id=run.flow_run_id,
        metrics=metrics,
        folds={
            "done": counts["folds"] - counts["failed_folds"],
            "reused": counts["reused_folds"],
            "failed": counts["failed_folds"],
        },
        vintages=told,
    )
