"""What a retraining does before its model takes the champion's place: drift, backtest, gate, promotion, report."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from typing import Any

import pandas as pd
from prefect.artifacts import acreate_markdown_artifact
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field, field_validator

from chapkit_flows import registry
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import with_horizon
from chapkit_flows.data.panels import Panel
from chapkit_flows.data.periods import season_of
from chapkit_flows.errors import PromotionConflict, RegistryError
from chapkit_flows.evaluation.drift import check_drift, measure_drift
from chapkit_flows.evaluation.gates import judge, read_gate
from chapkit_flows.evaluation.splits import Split
from chapkit_flows.flows import steps
from chapkit_flows.flows.backtest import BacktestPlan, check_backtest, forecast_folds, score_all, score_folds
from chapkit_flows.flows.check import resolve_horizon
from chapkit_flows.flows.evaluations import describe_skill, show_pictures
from chapkit_flows.flows.events import announce_decision
from chapkit_flows.flows.folds import read_dataset
from chapkit_flows.flows.markdown import plain, table
from chapkit_flows.flows.pictures import Shown, draw_pictures
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.skill import score_baselines
from chapkit_flows.flows.summary import artifact_key, next_step, origin_parts
from chapkit_flows.flows.training import load_training
from chapkit_flows.lineage.assignments import Decision, ModelVersion
from chapkit_flows.lineage.deletions import find_deletion
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import latest_training, producer
from chapkit_flows.lineage.registry import check_alias, find_version, holders
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.runner import Geo
from chapkit_flows.promotion import describe_backtest, find_backtest, read_scores
from chapkit_flows.refs import ArtifactRef, CodeVersion, Diagnostic, new_id


class RetrainGate(BaseModel):
    """What a newly trained model must pass before it takes the place of the one in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: list[dict[str, Any]] = Field(
        description='Rules that must all hold, such as {"better": {"metric": "crps", "by": 0.02}}, '
        '{"within": {"metric": "coverage_90", "low": 0.8, "high": 0.97}} or '
        '{"no_place_worse": {"metric": "crps", "by": 0.2}}.'
    )
    plan: BacktestPlan = Field(default=BacktestPlan(), description="How candidate and champion are tried.")
    alias: str = Field(default="champion", description="The alias that the new model takes over.")

    @field_validator("rules")
    @classmethod
    def _check_rules(cls, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Refuse a gate that cannot be judged before anything runs."""
        read_gate(rules)
        return rules

    @field_validator("alias")
    @classmethod
    def _check_alias(cls, alias: str) -> str:
        """Refuse what cannot be an alias before anything runs."""
        return check_alias(alias)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Champion:
    """The version that holds the alias, and its scores on the folds of the candidate, or of its own backtest."""

    version: ModelVersion
    scores: pd.DataFrame
    sources: Mapping[str, Any]


@steps.step("compare the data with that of the model in use")
async def find_drift(session: RunSession, config: ModelConfig, alias: str, data: Panel) -> tuple[Diagnostic, ...]:
    """Say in what the data that came since differs from what the model in use was trained on.

    Where no period came since, as in a revision, the whole table is compared.
    """
    findings = await asyncio.to_thread(_find_drift, session, config, alias, data)
    log = get_run_logger()
    for found in findings:
        if found.severity != "info":
            log.warning("%s: %s", found.code, found.message)
    return findings


def _find_drift(session: RunSession, config: ModelConfig, alias: str, data: Panel) -> tuple[Diagnostic, ...]:
    database, name = session.resources.database, session.model.name
    holder = holders(database, name).get(alias)
    if holder is not None:
        used = producer(database, find_version(database, name, str(holder.number)).artifact_id)
    else:
        used = latest_training(database, name)
    before = next((edge.artifact for edge in used.inputs if edge.role == "data"), None) if used else None
    if before is None:
        return ()
    columns = (*session.model.covariates(config), session.model.target)
    training = read_dataset(session.resources.store, before.digest, before.media_type, columns)
    shared = [column for column in columns if column in training.columns]
    newer = data.frame[data.frame["time_period"] > training["time_period"].max()]
    recent = data.frame if newer.empty else newer
    return check_drift(measure_drift(training, recent, shared, season_of=season_of))


async def try_candidate(
    session: RunSession,
    config: ModelConfig,
    gate: RetrainGate,
    inputs: tuple[Panel, Geo | None],
    drift: Sequence[Diagnostic],
) -> None:
    """Backtest the config beside that of the champion on the same folds, judge, and keep the report."""
    data, polygons = inputs
    settings = with_horizon(config, resolve_horizon(config, gate.plan.periods))
    cuts = gate.plan.cut(settings.prediction_periods)
    splits = await check_backtest(session, cuts, gate.plan.strategy, data)
    forecasts = await forecast_folds(session, settings, gate.plan, splits)
    await score_folds(session, data, splits, forecasts)
    await score_baselines(session, settings.prediction_periods, (data, splits), gate.plan.baselines)
    if gate.plan.pictures:
        await draw_pictures(session, data, polygons)
    champion = await _try_champion(session, gate, settings.prediction_periods, splits, data)
    await judge_candidate(session, gate, champion, drift)


async def _try_champion(
    session: RunSession, gate: RetrainGate, horizon: int, splits: Sequence[Split], data: Panel
) -> _Champion | None:
    """Of a champion with other code only the backtest that was made with that code can be compared."""
    resources, model = session.resources, session.model
    holder = holders(resources.database, model.name).get(gate.alias)
    if holder is None:
        return None
    version = find_version(resources.database, model.name, str(holder.number))
    # What is compared is what its config and code forecast: for that its own bytes are not needed.
    training = await load_training(resources.database, model, version.artifact_id, deleted_too=True)
    in_trash = find_deletion(resources.database, version.artifact_id) is not None
    if not _is_same_code(training.run, model):
        recalled = await asyncio.to_thread(_recall_champion, session, version)
        return replace(recalled, sources={**recalled.sources, "in_trash": in_trash})
    forecasts = await forecast_folds(session, with_horizon(training.config, horizon), gate.plan, splits)
    tables, _ = await asyncio.to_thread(score_all, session, data, forecasts)
    sources = {
        "version": version.name,
        "backtest": session.fact.id,
        "in_trash": in_trash,
        "data": [edge.artifact.digest for edge in session.inputs if edge.role == "data"],
    }
    scores = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return _Champion(version=version, scores=scores, sources=sources)


def _recall_champion(session: RunSession, version: ModelVersion) -> _Champion:
    try:
        backtest = find_backtest(session.resources, version, like=session.fact)
    except RegistryError as error:
        # Rules that compare then do not hold: the champion stays until it can be compared with.
        return _Champion(version=version, scores=pd.DataFrame(), sources={"version": version.name, "error": str(error)})
    return _Champion(
        version=version,
        scores=read_scores(session.resources, backtest),
        sources=describe_backtest(version.name, backtest),
    )


def _is_same_code(training: RunFact, model: ModelContract) -> bool:
    def source(code: CodeVersion) -> tuple[str | None, ...]:
        return code.git_commit, code.patch_digest, code.source_digest

    same_contract = training.output("model").metadata.get("contract") == model.digest
    return training.code is not None and same_contract and source(training.code) == source(model.code_version)


@steps.step("judge the candidate")
async def judge_candidate(
    session: RunSession, gate: RetrainGate, champion: _Champion | None, drift: Sequence[Diagnostic]
) -> None:
    """Hold the gate's rules against the scores, and keep what came of it as a report."""

    def work() -> ArtifactRef:
        made = next(edge.artifact for edge in session.outputs if edge.role == "scores")
        candidate: pd.DataFrame = load(session.resources.store, made, allow_pickle=False)
        verdict = judge(read_gate(gate.rules), candidate, champion.scores if champion else None)
        data = [edge.artifact.digest for edge in session.inputs if edge.role == "data"]
        evidence = verdict.as_json() | {
            "candidate": {"backtest": session.fact.id, "scores": made.id, "data": data},
            "champion": dict(champion.sources) if champion else None,
            "drift": [asdict(found) for found in drift],
        }
        text = "\n\n".join(describe_trial(session.model.name, evidence))
        stored = session.resources.store.put(BytesIO(text.encode()))
        return ArtifactRef(
            id=new_id(),
            kind="report",
            digest=stored.digest,
            size=stored.size,
            media_type="text/markdown",
            metadata={
                "name": "gate.md",
                "model": session.model.name,
                "alias": gate.alias,
                "expected": champion.version.number if champion else None,
                "evidence": evidence,
            },
        )

    session.produced("report", await asyncio.to_thread(work))


@steps.step("promote or keep")
async def promote_or_keep(session: RunSession) -> tuple[bool, str]:
    """Register the new model; give it the alias if it passed. A repeated run does it once.

    Returns:
        Whether it holds the alias now, and what was decided, in words.
    """

    def work() -> tuple[bool, str]:
        resources, model, facts = (
            session.resources,
            session.fact.output("model"),
            session.fact.output("report").metadata,
        )
        alias, actor = str(facts["alias"]), f"run {session.fact.id}"
        version = registry.register(resources, model.id, by=actor, note="made by a retraining with a gate")
        holder = holders(resources.database, version.model).get(alias)
        if holder is not None and holder.number == version.number:
            return True, f"{version.name} is {alias} now."
        stays = f"{version.model}@{facts['expected']} stays {alias}" if facts["expected"] else f"there is no {alias}"
        if not facts["evidence"]["passed"]:
            return False, f"{version.name} does not pass the gate: {stays}."
        decision = Decision(actor=actor, reason="passed the gate of a retraining", evidence=facts["evidence"])
        try:
            registry.promote(resources, version, alias=alias, expected=facts["expected"], decision=decision)
        except PromotionConflict as error:
            return False, f"{version.name} passed the gate, but {error}"
        announce_decision(session.fact, version, alias, "promoted", facts["evidence"])
        return True, f"{version.name} passed the gate and is {alias} now."

    promoted, told = await asyncio.to_thread(work)
    get_run_logger().info("%s", told)
    return promoted, told


async def publish_decision(run: RunFact, shown: Shown, told: str) -> None:
    """Publish a markdown artifact: what was decided, by which numbers, how good it is, and how the data has changed."""
    evidence = run.output("report").metadata["evidence"]
    head, *trial = describe_trial(run.model, evidence)
    parts = [head, f"**{plain(told)}**", *trial, *describe_skill(shown), *show_pictures(shown)]
    parts += ["### The new model", next_step(run, "model")]
    await acreate_markdown_artifact(
        markdown="\n\n".join([*parts, *origin_parts(run, "model")]),
        key=artifact_key(run.model, run.flow),
        description="Whether the new model took the place of the one before, and why",
    )


def describe_trial(model: str, evidence: Mapping[str, Any]) -> list[str]:
    """Parts of the markdown of a gate's verdict."""
    rows = [
        ["holds" if found["severity"] == "info" else "**fails**", plain(found["message"])]
        for found in evidence["findings"]
    ]
    champion = evidence["champion"]
    beside = f"Compared with {champion['version']}." if champion else "There was no champion to compare with."
    if champion and champion.get("in_trash"):
        beside += " It is in the trash: predictions with it are refused until it is restored or another is promoted."
    drift = [[found["severity"], plain(found["message"])] for found in evidence["drift"]]
    changed = table(("", "Input"), drift) if drift else "No input has drifted from the data of the model in use."
    passed = "passed" if evidence["passed"] else "did not pass"
    lead = f"The new model {passed} the gate. {plain(beside)}"
    return [f"## {model}: retrained", lead, table(("Rule", "Numbers"), rows), "### Drift of the inputs", changed]
