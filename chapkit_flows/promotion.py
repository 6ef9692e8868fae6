"""Promotion through a gate: the scores of a candidate beside those of the holder of the alias, on the same folds.

A version is a trained model, a backtest tries what trained it. The backtest of a version is therefore the newest
completed one of its model with the config version and the source of its training (commit, patch and file; installed
packages may differ, and so may the data: rows are compared where origin, place and period are the same). Two backtests
are compared only if their forecasts knew as much: the same of the weather ahead, and of revisions that came later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from chapkit_flows import registry
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.errors import GateFailed, RegistryError
from chapkit_flows.evaluation.gates import Gate, Verdict, judge
from chapkit_flows.lineage.assignments import Assignment, Decision, ModelVersion
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import latest_backtest, producer, what_is_known
from chapkit_flows.lineage.registry import check_alias, find_version, holders
from chapkit_flows.refs import Diagnostic
from chapkit_flows.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a gate said of a candidate.

    Attributes:
        expected: The number of the version that held the alias when it was said; None for none.
        sources: Which backtests and data were compared.
    """

    verdict: Verdict
    expected: int | None
    sources: Mapping[str, Any]

    def evidence(self) -> dict[str, Any]:
        """All of it as JSON values, to be kept with the promotion."""
        return self.verdict.as_json() | dict(self.sources)


def promote_through(
    resources: Resources, version: ModelVersion, gate: Gate, *, alias: str, decision: Decision
) -> Assignment:
    """Point an alias to a version if a gate lets it pass.

    Without a holder of the alias, rules that compare have nothing to compare with, and hold.

    Raises:
        GateFailed: It does not pass.
        RegistryError: There is no backtest to judge by.
        PromotionConflict: The alias was moved meanwhile.
    """
    trial = try_version(resources, version, gate, alias=alias)
    if not trial.verdict.passed:
        raise GateFailed([_refusal(version, alias, trial.expected), *trial.verdict.findings])
    return registry.promote(
        resources,
        version,
        alias=alias,
        expected=trial.expected,
        decision=Decision(actor=decision.actor, reason=decision.reason, evidence=trial.evidence()),
    )


def _refusal(version: ModelVersion, alias: str, held: int | None) -> Diagnostic:
    stays = "there is none still" if held is None else f"{version.model}@{held} stays it"
    message = f"{version.name} does not pass the gate, so it is not {alias}: {stays}. Nothing was changed."
    return Diagnostic.error("gate_failed", message, "model")


def try_version(resources: Resources, version: ModelVersion, gate: Gate, *, alias: str) -> Trial:
    """Judge a version beside the one that holds an alias now.

    Raises:
        InvalidAlias: The name cannot be one.
        RegistryError: There is no backtest of one of the two.
    """
    holder = holders(resources.database, version.model).get(check_alias(alias))
    if holder is None or holder.number is None:
        candidate, beside, scores = find_backtest(resources, version), None, None
    else:
        champion = find_version(resources.database, version.model, str(holder.number))
        candidate, backtest = _find_alike(resources, version, champion)
        beside, scores = describe_backtest(champion.name, backtest), read_scores(resources, backtest)
    sources = {"candidate": describe_backtest(version.name, candidate), "champion": beside}
    verdict = judge(gate, read_scores(resources, candidate), scores)
    return Trial(verdict=verdict, expected=holder.number if holder else None, sources=sources)


def _find_alike(resources: Resources, version: ModelVersion, champion: ModelVersion) -> tuple[RunFact, RunFact]:
    """The newest backtest of a version, or of the champion, with the newest of the other that knew as much.

    Raises:
        RegistryError: There is none.
    """
    own, other = (find_backtest(resources, one) for one in (version, champion))
    beside = _find(resources, champion, like=own)
    if beside is not None:
        return own, beside
    before = _find(resources, version, like=other)
    if before is not None:
        return before, other
    raise RegistryError(
        f"No backtests of {version.name} and {champion.name} knew as much: the newest forecasts of {version.name} had "
        f"{_describe_known(own)} and those of {champion.name} {_describe_known(other)}. Make one that is like the "
        "other: chapkit-flows backtest has the options --covariates, --vintages, --delay and --truth-lag."
    )


def _describe_known(backtest: RunFact) -> str:
    known = what_is_known(backtest.parameters)
    vintages = known["vintages"]
    days = "" if not vintages else f" with vintages ({', '.join(f'{key} {value}' for key, value in vintages.items())})"
    return f"covariates {known['covariates']}{days}"


def find_backtest(resources: Resources, version: ModelVersion, *, like: RunFact | None = None) -> RunFact:
    """The backtest of what trained a version; with `like` one whose forecasts knew as much as those of that run.

    Raises:
        RegistryError: There is none.
    """
    found = _find(resources, version, like=like)
    if found is None:
        training = producer(resources.database, version.artifact_id)
        where = training.entrypoint if training is not None and training.entrypoint else "MODEL"
        such = "" if like is None else f" and {_describe_known(like)}"
        raise RegistryError(
            f"There is no completed backtest of {version.name}: none with the config version and the code of its "
            f"training{such}. Make one with: chapkit-flows backtest {where} --data URI"
        )
    return found


def _find(resources: Resources, version: ModelVersion, *, like: RunFact | None) -> RunFact | None:
    training = producer(resources.database, version.artifact_id)
    if training is None or training.config is None or training.code is None:
        return None
    return latest_backtest(resources.database, version.model, training.config.digest, training.code, like=like)


def read_scores(resources: Resources, backtest: RunFact) -> pd.DataFrame:
    """The rows that a backtest scored."""
    scores: pd.DataFrame = load(resources.store, backtest.output("scores"), allow_pickle=False)
    return scores


def describe_backtest(version: str, backtest: RunFact) -> dict[str, Any]:
    """Which backtest it was, as JSON values."""
    return {
        "version": version,
        "backtest": backtest.id,
        "scores": backtest.output("scores").id,
        "data": [edge.artifact.digest for edge in backtest.inputs if edge.role == "data"],
    }
