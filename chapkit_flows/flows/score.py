"""The flow that scores old predictions once the truth is known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from prefect.logging import get_run_logger

from chapkit_flows.artifacts.codecs import load, save
from chapkit_flows.data.periods import season_of
from chapkit_flows.errors import ArtifactError, ChapkitFlowsError, EvaluationError, UnscorableForecast, ValidationFailed
from chapkit_flows.evaluation.scores import fingerprint, learn_yardstick, score_split, summarise
from chapkit_flows.evaluation.splits import Split
from chapkit_flows.flows import steps
from chapkit_flows.flows.backtest import artifact_of, read_scores
from chapkit_flows.flows.challengers import (
    LiveGate,
    compare_versions,
    describe_standing,
    promote_or_propose,
    told_of,
)
from chapkit_flows.flows.check import errors_first, has_errors
from chapkit_flows.flows.evaluations import publish_scores
from chapkit_flows.flows.folds import read_dataset
from chapkit_flows.flows.ingest import fetch, keep, parse_table
from chapkit_flows.flows.results import ScoreResult
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.summary import publish_diagnostics
from chapkit_flows.lineage.deletions import get_usable
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import list_artifacts, producer
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.worker import run_apart
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.standing import FINGERPRINTS, last_scorings

_COUNTS = ("scored", "unchanged", "waiting", "failed")
_KEYS = ["time_period", "location"]
_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scored:
    """The rows of the predictions that could be scored, and which could not be yet, or at all, and why."""

    tables: Mapping[str, pd.DataFrame]
    artifacts: Mapping[str, ArtifactRef]
    waiting: int
    failed: Mapping[str, str]


async def score(
    model: ModelContract, truth: str, prediction: str | None = None, *, gate: LiveGate | None = None
) -> ScoreResult:
    """Load and fingerprint the truth, score what it covers, compare the versions in use, record, decide, publish."""
    given = {"truth": truth, "prediction": prediction, "gate": gate.model_dump(mode="json") if gate else None}
    async with RunSession(model, "score", given) as run:
        if not run.done:
            known = await load_truth(run, truth)
            fresh = await score_predictions(run, known, prediction)
            await compare_versions(run, fresh, gate)
            await steps.record(run)
        decision = None if gate is None else await promote_or_propose(run, gate)
        made = run.fact.find_output("scores")
        standing = told_of(run.fact)
        told = [] if standing is None else describe_standing(standing)
        told += [] if decision is None else [decision[1]]
        await publish_scores(run.fact, None if made is None else await read_scores(run), told)
        return _result(run.fact, made, standing, decision)


@steps.step("load truth")
async def load_truth(session: RunSession, uri: str) -> pd.DataFrame:
    """Read the truth, and keep its bytes in the store.

    Returns:
        The rows in which the target is known.

    Raises:
        ValidationFailed: It is no panel, or lacks the target.
    """
    target = session.model.target

    def work() -> pd.DataFrame:
        with fetch(session.resources, uri) as fetched:
            loaded = parse_table(fetched, "truth", required=(), target=target)
            if loaded.panel is None or has_errors(loaded.findings):
                raise ValidationFailed(errors_first(loaded.findings))
            artifact, ingested = keep(session.resources, fetched, loaded.panel.profile())
        session.consumed("truth", artifact, fetched=fetched, ingested=ingested)
        return loaded.panel.frame

    async with steps.showing_unreadable(session.model, "truth"):
        try:
            frame = await run_apart(work)
        except ValidationFailed as refusal:
            await publish_diagnostics(session.model.name, refusal.diagnostics)
            raise
    return frame[frame[target].notna()].reset_index(drop=True)


@steps.step("score the predictions")
async def score_predictions(
    session: RunSession, truth: pd.DataFrame, prediction: str | None
) -> Mapping[str, pd.DataFrame]:
    """Score one prediction, or all of the model that the truth has come for; keep the scores in the store.

    What was scored before with the same result is left alone: the same command twice records each score once.

    Returns:
        The scores of each prediction.

    Raises:
        ArtifactError: The artifact is no prediction of the model.
        UnscorableForecast: The truth has nothing for the one prediction, or not for its places.
        EvaluationError: The model has made no prediction.
    """
    done = await asyncio.to_thread(_score_all, session, truth, prediction)
    prints = {key: fingerprint(table) for key, table in done.tables.items()}
    before = await asyncio.to_thread(last_scorings, session.resources.database, session.model.name)
    new = [key for key in done.tables if prints[key] != before.get(key)]
    for key in new:
        session.consumed("prediction", done.artifacts[key])
        session.artifact_metrics[key] = _means(done.tables[key])
    counts = (len(new), len(done.tables) - len(new), done.waiting, len(done.failed))
    session.metrics |= dict(zip(_COUNTS, map(float, counts), strict=True))
    if done.tables:
        session.metrics |= _means(pd.concat(done.tables.values(), ignore_index=True))
    if new:
        table = pd.concat([done.tables[key].assign(prediction=key) for key in new], ignore_index=True)
        saved = await asyncio.to_thread(save, session.resources.store, table)
        facts = {"model": session.model.name, "name": "scores", "failed": dict(done.failed)}
        facts[FINGERPRINTS] = {key: prints[key] for key in new}
        session.produced("scores", replace(artifact_of(saved, "metrics"), metadata=facts))
    log = get_run_logger()
    log.info("Scored %d predictions, %d more as before; %d have no truth yet", *counts[:3])
    for key, reason in done.failed.items():
        log.error("The prediction %s cannot be scored: %s", key, reason)
    return done.tables


def _means(table: pd.DataFrame) -> dict[str, float]:
    means = summarise(table).set_index("metric")["value"].dropna()
    return {str(name): float(value) for name, value in means.items()}


def _score_all(session: RunSession, truth: pd.DataFrame, prediction: str | None) -> _Scored:
    if prediction is not None:
        artifact = get_usable(session.resources.database, prediction)
        made = _maker(session, artifact)
        rows = _score(session, artifact, made, truth)
        if rows is None:
            raise UnscorableForecast(
                f"The truth has no value of {session.model.target!r} for any place and period of the prediction "
                f"{artifact.id} ({artifact.metadata.get('first')} to {artifact.metadata.get('last')}). Score it when "
                "the truth is known."
            )
        return _Scored(tables={artifact.id: rows}, artifacts={artifact.id: artifact}, waiting=0, failed={})
    tables, artifacts, failed, waiting = {}, {}, {}, 0
    for artifact, made in _predictions(session):
        try:
            rows = _score(session, artifact, made, truth)
        except ChapkitFlowsError as error:
            failed[artifact.id] = str(error)
            continue
        if rows is None:
            waiting += 1
        else:
            tables[artifact.id], artifacts[artifact.id] = rows, artifact
    if not tables and not failed and not waiting:
        raise EvaluationError(
            f"{session.model.name} has made no prediction that could be scored. List them with: "
            "chapkit-flows artifacts list --kind prediction"
        )
    return _Scored(tables=tables, artifacts=artifacts, waiting=waiting, failed=failed)


def _predictions(session: RunSession) -> Iterator[tuple[ArtifactRef, RunFact]]:
    """All predictions of the model that are not in the trash, newest first, with the run that made each."""
    database, name, before = session.resources.database, session.model.name, None
    while page := list_artifacts(database, kind="prediction", model=name, limit=_PAGE, before=before):
        for artifact in page:
            made = producer(database, artifact.id)
            if made is not None and made.model == name and made.status == "completed":
                yield artifact, made
        before = page[-1].id


def _maker(session: RunSession, artifact: ArtifactRef) -> RunFact:
    """The run that made a prediction of the model.

    Raises:
        ArtifactError: It is none.
    """
    if artifact.kind != "prediction":
        raise ArtifactError(
            f"{artifact.id} is a {artifact.kind}, not a prediction. List the predictions with: "
            "chapkit-flows artifacts list --kind prediction"
        )
    made = producer(session.resources.database, artifact.id)
    if made is None or made.model != session.model.name:
        owner = f"the model {made.model}" if made else "no recorded run"
        raise ArtifactError(f"{artifact.id} was predicted by {owner}, not by {session.model.name}.")
    return made


def _score(session: RunSession, artifact: ArtifactRef, made: RunFact, truth: pd.DataFrame) -> pd.DataFrame | None:
    """The scores of a prediction; None if nothing of it is known yet."""
    store, target = session.resources.store, session.model.target
    frame: pd.DataFrame = load(store, artifact, allow_pickle=False)
    known = truth[truth["location"].isin(frame["location"]) & truth["time_period"].isin(frame["time_period"])]
    if frame[_KEYS].merge(known[_KEYS], on=_KEYS).empty:
        return None
    historic = next((edge.artifact for edge in made.inputs if edge.role == "historic"), None)
    if historic is None:
        raise UnscorableForecast(f"It is not recorded from which data {artifact.id} was predicted.")
    past = read_dataset(store, historic.digest, historic.media_type, (target,))
    if target not in past.columns:
        past = past.assign(**{target: np.nan})
    split = Split(
        number=0,
        origin=str(past["time_period"].max()),
        train_periods=tuple(sorted(past["time_period"].unique())),
        test_periods=tuple(sorted(frame["time_period"].unique())),
    )
    yardstick = learn_yardstick(past, target=target, season_of=season_of)
    # Of places that were not predicted, nothing can be scored; all that were must be in the truth.
    places = truth[truth["location"].isin(frame["location"])]
    return score_split(frame, places, target=target, split=split, yardstick=yardstick)


def _result(
    run: RunFact,
    scores: ArtifactRef | None,
    standing: Mapping[str, Any] | None,
    decision: tuple[str | None, str] | None,
) -> ScoreResult:
    metrics = dict(run.metrics)
    counts = {name: int(metrics.pop(name, 0)) for name in _COUNTS}
    return ScoreResult(
        run_id=run.id,
        status=run.status,
        artifact_id=scores.id if scores is not None else None,
        flow_run_id=run.flow_run_id,
        metrics=metrics,
        predictions=counts,
        standing=standing,
        passed=decision[0] if decision else None,
        decision=decision[1] if decision else None,
    )
