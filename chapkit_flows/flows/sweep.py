"""The flow that finds out which of many configs, and of several models, is best: each tried on the same folds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from prefect.artifacts import acreate_markdown_artifact
from prefect.logging import get_run_logger

from chapkit_flows import experiments
from chapkit_flows.artifacts.codecs import save
from chapkit_flows.artifacts.manifests import user_name
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.errors import BacktestFailed
from chapkit_flows.flows import steps
from chapkit_flows.flows.backtest import BacktestPlan, artifact_of, check_backtest
from chapkit_flows.flows.check import resolve_horizon
from chapkit_flows.flows.markdown import plain, table
from chapkit_flows.flows.results import SweepResult
from chapkit_flows.flows.searches import Contestant, SweepPlan, batches, make_search, read_contestants
from chapkit_flows.flows.secrets import with_secrets
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.summary import artifact_key, facts_table
from chapkit_flows.flows.trials import Attempt, Conditions, run_trials, trial_edges
from chapkit_flows.lineage.experiments import Experiment, find_experiment
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.ranking import Ranking, rank
from chapkit_flows.refs import canonical_json

_COUNTS = ("trials", "reused_trials", "failed_trials")


async def sweep(
    model: ModelContract, config: ModelConfig, inputs: tuple[str, str | None], *, search: SweepPlan, plan: BacktestPlan
) -> SweepResult:
    """Load the data once, try each config on the same folds, compare, record, publish."""
    data, geo = inputs
    horizon = resolve_horizon(config, plan.periods)
    cuts = plan.cut(horizon)
    # A trial draws no pictures: nobody looks at those of a hundred.
    given = {"data": data, "geo": geo, **plan.model_dump(mode="json"), "periods": horizon, "pictures": False}
    contestants = await read_contestants(model, config, search)
    parameters = given | {f"sweep_{name}": value for name, value in search.model_dump(mode="json").items()}
    async with RunSession(model, "sweep", parameters, config=config) as run:
        if not run.done:
            settings = with_horizon(config, horizon)
            revealed = await with_secrets(model.name, settings)
            loaded = await steps.load_data(run, data, role="data", config=settings)
            polygons = await steps.load_geo(run, geo) if geo else None
            panel = await steps.validate_training(run, revealed, loaded, polygons)
            await check_backtest(run, cuts, plan.strategy, panel)
            conditions = Conditions(
                session=run,
                experiment=await asyncio.to_thread(_open, run, contestants, search),
                plan=plan,
                horizon=horizon,
                geo=polygons,
                parameters=given | {"experiment": search.experiment, "sweep": run.fact.id},
            )
            attempts = await _try_all(conditions, contestants, search)
            await compare_trials(run, conditions.experiment, search.metric, attempts)
            await steps.record(run)
        ranking = await asyncio.to_thread(_look, run, search)
        await publish_sweep(run.fact, ranking)
        return _result(run.fact, ranking)


def _open(run: RunSession, contestants: Sequence[Contestant], search: SweepPlan) -> Experiment:
    names = dict.fromkeys(one.model.name for one in contestants)
    wanted = Experiment(
        name=search.experiment, models=tuple(names), description=search.description.strip(), author=user_name()
    )
    return experiments.open_experiment(run.resources, wanted)


async def _try_all(conditions: Conditions, contestants: Sequence[Contestant], search: SweepPlan) -> list[Attempt]:
    searching = make_search(contestants, search)
    attempts: list[Attempt] = []
    for proposed in batches(searching):
        done = await run_trials(conditions, proposed)
        searching.tell(done)
        attempts += done
    return attempts


@steps.step("compare the trials")
async def compare_trials(session: RunSession, experiment: Experiment, metric: str, attempts: Sequence[Attempt]) -> None:
    """Keep a table of the trials of this sweep, and say which of the experiment is the best.

    Raises:
        BacktestFailed: No trial could be done.
    """
    runs = {attempt.run.id: attempt.run for attempt in attempts if attempt.run is not None}
    failed = [run for run in runs.values() if run.status != "completed"]
    counts = (len(attempts), sum(attempt.reused for attempt in attempts), len(failed))
    session.metrics |= dict(zip(_COUNTS, map(float, counts), strict=True))
    session.inputs += trial_edges(attempts)
    if len(failed) == len(runs):
        raise BacktestFailed(f"None of the {len(attempts)} trials could be done. The first one: {failed[0].error}")
    ranking = await asyncio.to_thread(rank, session.resources, experiment, metric)
    await asyncio.to_thread(_keep, session, ranking)
    log = get_run_logger()
    log.info("Compared %d trials, %d of them done before or alike, %d failed", *counts)
    if ranking.best is not None and ranking.best.score is not None:
        session.metrics[f"best_{metric}"] = ranking.best.score
        log.info("The best is trial %d: %s", ranking.best.trial.number, ranking.best.text)


def _keep(session: RunSession, ranking: Ranking) -> None:
    frame = pd.DataFrame(
        {
            "trial": row.trial.number,
            "run": row.run.id,
            "model": row.run.model,
            "values": canonical_json(row.values).decode(),
            ranking.metric: row.score,
            "is_best": row.is_best,
        }
        for row in ranking.rows
    )
    facts = {"name": "trials", "model": session.model.name, "experiment": ranking.experiment.name}
    session.produced("trials", replace(artifact_of(save(session.resources.store, frame), "metrics"), metadata=facts))


def _look(run: RunSession, search: SweepPlan) -> Ranking:
    experiment = find_experiment(run.resources.database, search.experiment)
    return rank(run.resources, experiment, search.metric)


async def publish_sweep(run: RunFact, ranking: Ranking) -> None:
    """Publish a markdown artifact: the trials of the experiment, the best first."""
    await acreate_markdown_artifact(
        markdown=describe_sweep(run, ranking),
        key=artifact_key(run.model, run.flow),
        description=f"The trials of the experiment {ranking.experiment.name}",
    )


def describe_sweep(run: RunFact, ranking: Ranking) -> str:
    """The markdown of a sweep."""
    experiment, best = ranking.experiment, ranking.best
    trials, reused, failed = (int(run.metrics.get(name, 0)) for name in _COUNTS)
    lead = f"{trials} trials in this sweep, {reused} of them done before or alike, {failed} failed."
    head, rows = ranking.cells()
    parts = [f"## {run.model}: the experiment {plain(experiment.name)}", plain(experiment.description), lead]
    if best is not None:
        parts.append(f"The best is trial {best.trial.number}: {plain(best.text)}. Run `{best.run.id}`.")
    parts.append(table([plain(cell) for cell in head], [[plain(cell) for cell in row] for row in rows]))
    errors = [[str(row.trial.number), plain(row.run.error)] for row in ranking.rows if row.run.error]
    if errors:
        parts += ["### Failed", table(("Trial", "Why"), errors)]
    if ranking.left_out:
        parts.append(f"{ranking.left_out} earlier trials are left out: other data, other folds, or older code.")
    given = replace(run, inputs=tuple(edge for edge in run.inputs if edge.role != "trial"))  # they stand above
    return "\n\n".join([*filter(None, parts), "### Made from", facts_table(given, None)])


def _result(run: RunFact, ranking: Ranking) -> SweepResult:
    best = ranking.best
    trials, reused, failed = (int(run.metrics.get(name, 0)) for name in _COUNTS)
    return SweepResult(
        run_id=run.id,
        status=run.status,
        artifact_id=run.output("trials").id,
        flow_run_id=run.flow_run_id,
        experiment=ranking.experiment.name,
        trials={"done": trials - failed, "reused": reused, "failed": failed},
        best={}
        if best is None
        else {
            "run_id": best.run.id,
            "number": best.trial.number,
            "values": dict(best.values),
            "score": best.score,
        },
    )
