"""Promotion through a gate: the scores of a candidate beside those of the holder of the alias, on the same folds.

A version is a trained model, a backtest tries what trained it. The backtest of a version is therefore the newest
completed one of its model with the config version and the source of its training (commit, patch and file; installed
packages may differ, and so may the data: rows are compared where origin, place and period are the same).
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
from chapkit_flows.lineage.query import latest_backtest, producer
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
    candidate = find_backtest(resources, version)
    sources: dict[str, Any] = {"candidate": describe_backtest(version.name, candidate), "champion": None}
    scores = None
    if holder is not None and holder.number is not None:
        champion = find_version(resources.database, version.model, str(holder.number))
        backtest = find_backtest(resources, champion)
        sources["champion"] = describe_backtest(champion.name, backtest)
        scores = read_scores(resources, backtest)
    verdict = judge(gate, read_scores(resources, candidate), scores)
    return Trial(verdict=verdict, expected=holder.number if holder else None, sources=sources)


def find_backtest(resources: Resources, version: ModelVersion) -> RunFact:
    """The backtest of what trained a version.

    Raises:
        RegistryError: There is none.
    """
    training = producer(resources.database, version.artifact_id)
    found = None
    if training is not None and training.config is not None and training.code is not None:
        found = latest_backtest(resources.database, version.model, training.config.digest, training.code)
    if found is None:
        where = training.entrypoint if training is not None and training.entrypoint else "MODEL"
        raise RegistryError(
            f"There is no completed backtest of {version.name}: none with the config version and the code of its "
            f"training. Make one with: chapkit-flows backtest {where} --data URI"
        )
    return found


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
