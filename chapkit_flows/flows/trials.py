"""The trials of a sweep: each a backtest that is recorded as a run of its own, once it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefect.logging import get_run_logger

from chapkit_flows import experiments
from chapkit_flows.artifacts.store import Store
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.data.panels import Panel
from chapkit_flows.errors import BacktestFailed, ChapkitFlowsError, ValidationFailed
from chapkit_flows.evaluation.splits import Split
from chapkit_flows.flows.backtest import BacktestPlan, check_backtest, order_fold, score_folds
from chapkit_flows.flows.check import Loaded, errors_first
from chapkit_flows.flows.fold_groups import Folds, begin_folds
from chapkit_flows.flows.folds import FoldOrder
from chapkit_flows.flows.ingest import Fetched, parse_table
from chapkit_flows.flows.secrets import with_secrets
from chapkit_flows.flows.session import MAX_ERROR, RunSession
from chapkit_flows.flows.skill import score_baselines
from chapkit_flows.flows.steps import record, training_findings
from chapkit_flows.lineage.experiments import Experiment, Trial
from chapkit_flows.lineage.facts import Edge, Outcome, RunFact
from chapkit_flows.lineage.query import get_run
from chapkit_flows.lineage.record import restore_runs
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.runner import Geo
from chapkit_flows.refs import ArtifactRef, RunRef, canonical_json, digest_of, new_id


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A config of a model that is to be tried.

    Attributes:
        config: None if the values do not fit the config class.
        values: Those that the sweep has changed, by alias.
        error: Why there is no config.
    """

    model: ModelContract
    config: ModelConfig | None
    values: Mapping[str, Any]
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conditions:
    """What is the same for all trials of a sweep.

    Attributes:
        session: The run of the sweep.
        parameters: That each trial is recorded with.
        past: The trials of the experiment so far, with those of this sweep. Read once: a search of a thousand trials
            in small batches would read half a million runs.
        loaded: The tables that were read, by model and covariates.
        splits: How they are cut, likewise.
    """

    session: RunSession
    experiment: Experiment
    plan: BacktestPlan
    horizon: int
    geo: Geo | None
    parameters: dict[str, Any]
    past: list[tuple[Trial, RunFact]]
    loaded: dict[tuple[str, ...], Loaded] = field(default_factory=dict)
    splits: dict[tuple[str, ...], tuple[Split, ...]] = field(default_factory=dict)

    def input(self, role: str) -> ArtifactRef | None:
        """What the sweep has read in a role."""
        return next((edge.artifact for edge in self.session.inputs if edge.role == role), None)


class TrialSession(RunSession):
    """A backtest within a sweep. It has no flow run of its own, and no row before it has ended: whatever kills the
    sweep leaves no run that seems to go on.
    """

    def __init__(self, conditions: Conditions, candidate: Candidate) -> None:
        """A trial that has not begun.

        Args:
            conditions: The inputs are those of the sweep.
            candidate: The model, and its config.
        """
        given = conditions.parameters | {"values": dict(candidate.values)}
        super().__init__(candidate.model, "backtest", given, config=candidate.config)
        sweep = conditions.session
        self.resources, self._settings, self._ingested = sweep.resources, sweep._settings, sweep._ingested
        self.inputs = [edge for edge in sweep.inputs if edge.role in ("data", "geo")]
        run = RunRef(
            id=new_id(),
            flow="backtest",
            model=candidate.model.name,
            entrypoint=candidate.model.entrypoint,
            parameters=self.parameters,
        )
        self.fact = RunFact(**{name: getattr(run, name) for name in RunRef.__slots__}, status="running")

    def fail(self, error: str) -> RunFact:
        """Record that the trial failed."""
        self.outputs.clear()
        return self._record("failed", error[:MAX_ERROR])

    def _finish(self, outcome: Outcome, keep: Callable[[RunFact], None]) -> RunFact:
        names = ("status", "error", "finished_at", "inputs", "outputs", "config", "code", "metrics")
        fact = replace(self.fact, **{name: getattr(outcome, name) for name in names})
        keep(fact)
        restore_runs(self.resources.database, [fact])
        recorded = get_run(self.resources.database, fact.id)
        if recorded != fact:
            keep(recorded)  # another run brought in the same data meanwhile
        return recorded


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """A trial on its way.

    Attributes:
        identity: Digest of all that its result depends on.
        run: Once it has ended.
        reused: Whether an earlier sweep of the experiment has done it.
        error: Why its folds cannot be begun.
        name: For people, where it is not reused; another sweep of the experiment at the same time may take its number.
    """

    candidate: Candidate
    identity: str
    run: RunFact | None = None
    reused: bool = False
    error: str = ""
    name: str = ""
    panel: Panel | None = None
    splits: tuple[Split, ...] = ()
    orders: list[FoldOrder] = field(default_factory=list)


async def run_trials(conditions: Conditions, candidates: Sequence[Candidate]) -> list[Attempt]:
    """Try some configs: the folds of all are submitted at once, and each trial is recorded when its folds are done."""
    resources = conditions.session.resources
    attempts = [await _prepare(conditions, candidate) for candidate in candidates]
    asked = {attempt.identity for attempt in attempts}
    done = await asyncio.to_thread(_find_done, resources.store, conditions.past, asked)
    for attempt in attempts:
        attempt.run = done.get(attempt.identity)
        attempt.reused = attempt.run is not None
    # Two candidates that come to the same are tried once.
    wanted = {attempt.identity: attempt for attempt in attempts if attempt.run is None}
    for number, attempt in enumerate(wanted.values(), start=len(conditions.past) + 1):
        attempt.name = f"trial {number}"
        attempt.orders = [replace(order, label=f"{attempt.name}, ") for order in attempt.orders]
    able = [attempt for attempt in wanted.values() if attempt.orders]
    groups = [attempt.orders for attempt in able]
    # Task runners are spoken to in blocking calls.
    begun = await asyncio.to_thread(begin_folds, resources.store, groups, conditions.plan.strategy)
    folds = {attempt.identity: some for attempt, some in zip(able, begun, strict=True)}
    for attempt in wanted.values():
        await _finish(conditions, attempt, folds.get(attempt.identity))
    for attempt in attempts:
        if attempt.run is None:
            attempt.run, attempt.reused = wanted[attempt.identity].run, True
    return attempts


def _find_done(store: Store, past: Sequence[tuple[Trial, RunFact]], asked: Collection[str]) -> dict[str, RunFact]:
    """Of the trials that are asked for those that need not be done again, by identity."""
    done = {}
    for trial, run in past:
        scores = run.find_output("scores") if trial.identity in asked else None
        if scores is None or run.status != "completed" or run.metrics.get("failed_folds"):
            continue
        if store.claim(scores.digest, scores.size):
            done[trial.identity] = run
    return done


async def _prepare(conditions: Conditions, candidate: Candidate) -> Attempt:
    """The orders of a trial; or why there are none, as what is wrong with one config must not end the others."""
    content = {"model": candidate.model.name, "values": candidate.values}
    attempt = Attempt(candidate=candidate, identity=digest_of(canonical_json(content)), error=candidate.error)
    if candidate.config is None:
        return attempt
    session = TrialSession(conditions, candidate)
    settings = with_horizon(candidate.config, conditions.horizon)
    plan = conditions.plan
    try:
        key = (candidate.model.name, *candidate.model.covariates(settings))
        attempt.panel = await _read_panel(conditions, key, candidate.model, settings)
        if key not in conditions.splits:
            cuts = plan.cut(conditions.horizon)
            conditions.splits[key] = await check_backtest(session, cuts, plan.strategy, attempt.panel)
        attempt.splits = conditions.splits[key]
        attempt.orders = [order_fold(session, settings, plan, split) for split in attempt.splits]
    except ChapkitFlowsError as error:
        attempt.error = f"{type(error).__name__}: {error}"
        return attempt
    keys = [order.key("forecast") for order in attempt.orders]
    attempt.identity = digest_of(
        canonical_json({"folds": keys, "strategy": plan.strategy, "baselines": plan.baselines})
    )
    return attempt


async def _read_panel(conditions: Conditions, key: tuple[str, ...], model: ModelContract, config: ModelConfig) -> Panel:
    """The data as a model wants it, checked against its contract and by itself.

    Raises:
        ValidationFailed: It does not fit.
    """
    if key not in conditions.loaded:
        conditions.loaded[key] = await asyncio.to_thread(_load, conditions, model, config)
    loaded = conditions.loaded[key]
    revealed = await with_secrets(model.name, config)
    findings = await training_findings(model, revealed, loaded, conditions.geo)
    errors = [found for found in findings if found.severity == "error"]
    if errors or loaded.panel is None:
        raise ValidationFailed(errors_first(errors))
    return loaded.panel


def _load(conditions: Conditions, model: ModelContract, config: ModelConfig) -> Loaded:
    data = conditions.input("data")
    assert data is not None
    with conditions.session.resources.store.open(data.digest) as file:
        fetched = Fetched(
            uri=str(data.metadata.get("name") or "data"),
            file=file,
            digest=data.digest,
            size=data.size,
            media_type=data.media_type,
            artifact=data,
        )
        return parse_table(fetched, "data", required=model.covariates(config), target=model.target)


async def _finish(conditions: Conditions, attempt: Attempt, folds: Folds | None) -> None:
    """Wait for the folds of a trial, score them, and record the run: as failed, if nothing could be scored."""
    session = TrialSession(conditions, attempt.candidate)
    log = get_run_logger()
    try:
        if attempt.error or folds is None:
            raise BacktestFailed(attempt.error)
        forecasts = await asyncio.to_thread(folds.finish)
        log.info("%s: %s", attempt.name.capitalize(), describe_values(attempt.candidate))
        if all(isinstance(one, ChapkitFlowsError) for one in forecasts):
            raise BacktestFailed(f"None of the {len(forecasts)} folds could be done. The first one: {forecasts[0]}")
        assert attempt.panel is not None
        await score_folds(session, attempt.panel, attempt.splits, forecasts)
        await score_baselines(session, conditions.horizon, (attempt.panel, attempt.splits), conditions.plan.baselines)
        attempt.run = await record(session)
    except BacktestFailed as error:
        attempt.run = await asyncio.to_thread(session.fail, str(error))
        log.error("%s failed, %s: %s", attempt.name.capitalize(), describe_values(attempt.candidate), error)
    await asyncio.to_thread(_join, conditions, attempt)


def describe_values(candidate: Candidate) -> str:
    """Which model and values are tried, in a line: `rain, n_lags = 3`."""
    return ", ".join([candidate.model.name, *(f"{name} = {value}" for name, value in candidate.values.items())])


def _join(conditions: Conditions, attempt: Attempt) -> None:
    assert attempt.run is not None
    resources = conditions.session.resources
    trial = experiments.add_trial(resources, conditions.experiment, attempt.run.id, identity=attempt.identity)
    conditions.past.append((trial, attempt.run))


def trial_edges(attempts: Sequence[Attempt]) -> list[Edge]:
    """The scores of trials, which their sweep compares, as what it has read."""
    made = {}
    for attempt in attempts:
        scores = attempt.run.find_output("scores") if attempt.run else None
        if scores is not None:
            made[scores.id] = scores
    return [Edge(role="trial", artifact=artifact) for artifact in made.values()]
