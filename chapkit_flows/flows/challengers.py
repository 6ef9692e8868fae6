"""What a scoring does once the truth has come: how the versions of the model stand now, and whether one is better."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

import pandas as pd
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field, field_validator

from chapkit_flows import registry
from chapkit_flows.errors import PromotionConflict
from chapkit_flows.evaluation.gates import read_gate
from chapkit_flows.flows import steps
from chapkit_flows.flows.events import announce_decision
from chapkit_flows.flows.markdown import digits, plain, table
from chapkit_flows.flows.session import RunSession
from chapkit_flows.lineage.assignments import Decision, ModelVersion
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import STANDING, latest_standing
from chapkit_flows.lineage.registry import check_alias, find_version, holders
from chapkit_flows.refs import ArtifactRef, new_id
from chapkit_flows.standing import read_standing, try_challengers

ALIAS = "champion"


class LiveGate(BaseModel):
    """What a challenger must pass, by its scored forecasts, to take the place of the version in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: list[dict[str, Any]] = Field(
        description="Rules that must all hold, such as: better: {metric: crps, by: 0.02, p_below: 0.1}."
    )
    promote: bool = Field(
        default=False,
        description="Give the alias to the best challenger that passes. By default it is only proposed: live "
        "forecasts are few and overlap, and the truth is often revised once more.",
    )
    alias: str = Field(default=ALIAS, description="The alias that says which version is in use.")

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


@steps.step("compare the versions in use")
async def compare_versions(session: RunSession, fresh: Mapping[str, pd.DataFrame], gate: LiveGate | None) -> None:
    """Say how the registered versions stand by their scored forecasts, and which passes the gate; keep that.

    Nothing is kept if no version is registered that has any, or if all is as it was when it was kept last.
    """

    def work() -> ArtifactRef | None:
        resources, model = session.resources, session.model.name
        alias = gate.alias if gate is not None else ALIAS
        standing = read_standing(resources, model, alias=alias, fresh=fresh)
        facts: dict[str, Any] = standing.to_dict() | {"trials": []}
        if gate is not None:
            tried = try_challengers(resources, standing, read_gate(gate.rules))
            facts["trials"] = [trial.evidence() for _, trial in tried]
        if not standing.live or (facts == latest_standing(resources.database, model) and not _passed(facts)):
            return None
        stored = resources.store.put(BytesIO("\n\n".join(describe_standing(facts)).encode()))
        return ArtifactRef(
            id=new_id(),
            kind="report",
            digest=stored.digest,
            size=stored.size,
            media_type="text/markdown",
            metadata={"name": "standing.md", "model": model, STANDING: facts},
        )

    made = await asyncio.to_thread(work)
    if made is not None:
        session.produced(STANDING, made)


@steps.step("promote or propose")
async def promote_or_propose(session: RunSession, gate: LiveGate) -> tuple[str | None, str]:
    """Give the alias to the best challenger that passed, if the gate says so. A repeated run does it once.

    Returns:
        The version that was promoted or is proposed, if any; and what was decided, in words.
    """
    made = session.fact.find_output(STANDING)
    facts: Mapping[str, Any] = made.metadata[STANDING] if made is not None else {}
    passed = _passed(facts)
    if not passed:
        return None, _why_none(facts)
    name = passed[0]["candidate"]["version"]
    version = find_version(session.resources.database, session.model.name, name.partition("@")[2])
    action, told = await asyncio.to_thread(_decide, session, gate, version, passed[0])
    get_run_logger().info("%s", told)
    if action is not None:
        announce_decision(session.fact, version, gate.alias, action, passed[0])
    return name, told


def _decide(
    session: RunSession, gate: LiveGate, version: ModelVersion, evidence: Mapping[str, Any]
) -> tuple[Literal["promoted", "proposed"] | None, str]:
    """What became of a challenger that passed: what there is to tell others, and the words."""
    champion, alias = evidence["champion"]["version"], gate.alias
    passes = f"{version.name} passes the gate beside {champion} by its live forecasts"
    if not gate.promote:
        option = "" if alias == ALIAS else f" --alias {alias}"
        command = f"chapkit-flows models promote {version.name}{option} --reason TEXT"
        return "proposed", f"{passes}. {champion} stays {alias}, as the gate only proposes. Promote it: {command}"
    resources = session.resources
    holder = holders(resources.database, version.model).get(alias)
    if holder is not None and holder.number == version.number:
        return None, f"{version.name} is {alias} now."
    reason = f"better than {champion} by live forecasts"
    decision = Decision(actor=f"run {session.fact.id}", reason=reason, evidence=dict(evidence))
    expected = int(champion.rpartition("@")[2])
    try:
        registry.promote(resources, version, alias=alias, expected=expected, decision=decision)
    except PromotionConflict as error:
        return None, f"{passes}, but {error}"
    return "promoted", f"{passes}, and is {alias} now."


def _passed(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [trial for trial in facts.get("trials", ()) if trial["passed"]]


def _why_none(facts: Mapping[str, Any]) -> str:
    if not facts:
        return "No registered version has forecasts that are scored: there is nothing to judge."
    if facts["champion"] is None:
        return f"There is no {facts['alias']}: nothing to compare with. Promote a version first."
    if not facts["trials"]:
        return f"No other version has forecasts beside those of {facts['champion']}, which stays {facts['alias']}."
    return f"No challenger passes the gate by its live forecasts: {facts['champion']} stays {facts['alias']}."


def describe_standing(facts: Mapping[str, Any]) -> list[str]:
    """Parts of the markdown that says how the versions of a model stand."""
    head = (
        "Version",
        "",
        "CRPS",
        "Predictions",
        "Periods",
        f"Beside {facts['champion'] or 'nobody'}",
        "Forecasts",
        "p",
    )
    rows = [_row(one, facts) for one in facts["versions"]]
    parts = ["### Versions, by their live forecasts", table(head, rows)]
    for trial in facts["trials"]:
        found = [
            ["holds" if one["severity"] == "info" else "**fails**", plain(one["message"])] for one in trial["findings"]
        ]
        parts += [f"{plain(trial['candidate']['version'])} at the gate:", table(("Rule", "Numbers"), found)]
    return parts


def _row(one: Mapping[str, Any], facts: Mapping[str, Any]) -> Sequence[str]:
    beside = one["beside"]
    role = facts["alias"] if one["version"] == facts["champion"] else ""
    cells = ["", "", ""]
    if beside is not None:
        skill = "" if beside["skill"] is None else f"{beside['skill']:+.1%}"
        chance = beside["note"] if beside["p_value"] is None else f"{beside['p_value']:.2g}"
        cells = [skill, str(beside["n_pairs"]), plain(chance)]
    periods = f"{one['first']} to {one['last']}"
    return [plain(one["version"]), role, digits(one["crps"]), str(one["predictions"]), periods, *cells]


def told_of(run: RunFact) -> dict[str, Any] | None:
    """How the versions stood after a scoring; None if it kept nothing of that."""
    made = run.find_output(STANDING)
    return None if made is None else dict(made.metadata[STANDING])
