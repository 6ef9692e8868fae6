"""Why two results differ: the causes in the order in which to look at them, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from chapkit_flows.configs.diff import describe, diff
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.refs import ArtifactRef, CodeVersion
from chapkit_flows.reports.datasets import describe_changes
from chapkit_flows.reports.runs import OF_SWEEP, result_of

Kind = Literal["model", "data", "config", "parameters", "code", "packages", "chance"]

_MOST = 8  # lines about one cause: all of it has to fit on a screen


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason why two results can differ.

    Attributes:
        text: A sentence.
        details: What exactly, a line each.
    """

    kind: Kind
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why two results differ, or that they do not.

    Attributes:
        is_same: Whether both are the same bytes; None where one of them made nothing.
        causes: The likeliest first. With equal results: what differed without an effect.
        equal: What is the same in both.
        scores: How the scores changed, a line each.
    """

    is_same: bool | None
    causes: tuple[Cause, ...]
    equal: tuple[str, ...]
    scores: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def explain(
    before: RunFact,
    after: RunFact,
    *,
    read: Callable[[ArtifactRef], pd.DataFrame],
    trainings: tuple[RunFact, RunFact] | None = None,
) -> Explanation:
    """Say why the results of two runs differ.

    Args:
        before: A run.
        after: Another one.
        read: Gives the table of a dataset; called only for those whose digests differ.
        trainings: The runs that made the models that were predicted with, if these differ.
    """
    causes: list[Cause] = []
    equal: list[str] = []
    findings = [
        *_model_causes(before, after, read, trainings),
        *_data_causes(before, after, read),
        _config_cause(before, after),
        _parameter_cause(before, after),
        *_code_causes(before.code, after.code),
    ]
    for found in findings:
        if isinstance(found, Cause):
            causes.append(found)
        else:
            equal.append(found)
    results = [result_of(run) for run in (before, after)]
    is_same = None if None in results else results[0].digest == results[1].digest  # type: ignore[union-attr]
    if not causes and is_same is False:
        causes.append(_chance(before))
    return Explanation(
        is_same=is_same, causes=tuple(causes), equal=tuple(equal), scores=tuple(_score_lines(before, after))
    )


def _chance(run: RunFact) -> Cause:
    seeds = [name for name in (run.config.content if run.config else {}) if "seed" in name.lower()]
    advice = (
        f"It has {', '.join(seeds)} in its config: check that all random numbers are drawn with it."
        if seeds
        else "Give its config a seed, and draw all random numbers with it."
    )
    return Cause(kind="chance", text=f"All inputs are the same: {run.model} is not deterministic. {advice}")


def _model_causes(
    before: RunFact,
    after: RunFact,
    read: Callable[[ArtifactRef], pd.DataFrame],
    trainings: tuple[RunFact, RunFact] | None,
) -> Iterator[Cause | str]:
    if before.model != after.model:
        yield Cause(kind="model", text=f"Two models: {before.model} and {after.model}.")
    digests = _digests(before, "model"), _digests(after, "model")
    if digests == ([], []):
        return
    if digests[0] == digests[1]:
        yield "the trained model"
        return
    details: list[str] = []
    if trainings is not None:
        for cause in explain(*trainings, read=read).causes:
            details += [cause.text, *(f"  {line}" for line in cause.details)]
    why = " Their trainings differ:" if details else ""
    yield Cause(kind="model", text=f"The predictions were made with two trained models.{why}", details=tuple(details))


def _data_causes(before: RunFact, after: RunFact, read: Callable[[ArtifactRef], pd.DataFrame]) -> Iterator[Cause | str]:
    roles = dict.fromkeys(edge.role for run in (before, after) for edge in run.inputs if edge.role != "model")
    for role in roles:
        old, new = _inputs(before, role), _inputs(after, role)
        if not old or not new:
            text = f"Only {'the first' if old else 'the second'} was given {role}."
            yield Cause(kind="data", text=text)
        elif old[0].digest == new[0].digest:
            yield f"{role} ({_short(old[0].digest)})"
        else:
            text = f"{role.capitalize()} changed: {_short(old[0].digest)} → {_short(new[0].digest)}."
            details = [] if role == "geo" else describe_changes(read(old[0]), read(new[0]))
            yield Cause(kind="data", text=text, details=_limited(details))


def _config_cause(before: RunFact, after: RunFact) -> Cause | str:
    contents = [dict(run.config.content) if run.config else {} for run in (before, after)]
    found = diff(*contents)
    if not found:
        return "the config"
    text = f"{len(found)} config value{'s' if len(found) > 1 else ''} changed."
    return Cause(kind="config", text=text, details=_limited([describe(one) for one in found]))


def _parameter_cause(before: RunFact, after: RunFact) -> Cause | str:
    roles = {*OF_SWEEP} | {edge.role for run in (before, after) for edge in run.inputs}
    given = [{name: value for name, value in run.parameters.items() if name not in roles} for run in (before, after)]
    found = diff(*given)
    if not found:
        return "the parameters of the run"
    text = f"{len(found)} parameter{'s' if len(found) > 1 else ''} of the run changed."
    return Cause(kind="parameters", text=text, details=_limited([describe(one) for one in found]))


def _code_causes(before: CodeVersion | None, after: CodeVersion | None) -> Iterator[Cause | str]:
    if before is None or after is None:
        return
    parts = [
        ("commit", before.git_commit, after.git_commit),
        ("local changes that are not committed", before.patch_digest, after.patch_digest),
        ("the file of the model", before.source_digest, after.source_digest),
    ]
    changed = [f"{name}: {_short(old)} → {_short(new)}" for name, old, new in parts if old != new]
    if changed:
        is_file = before.source_digest != after.source_digest
        what = "The model's file changed." if is_file else "The code around the model's file changed, not the file."
        yield Cause(kind="code", text=what, details=tuple(changed))
    else:
        yield "the code"
    versions = diff({"python": before.python, **before.packages}, {"python": after.python, **after.packages})
    if versions:
        text = f"{len(versions)} package{'s' if len(versions) > 1 else ''} changed."
        yield Cause(kind="packages", text=text, details=_limited([describe(one) for one in versions]))
    else:
        yield f"Python and {len(before.packages)} packages"


def _score_lines(before: RunFact, after: RunFact) -> Iterator[str]:
    for name in ("crps", "crps_log1p", "wis", "mae", "coverage_90"):
        if name in before.metrics and name in after.metrics:
            old, new = before.metrics[name], after.metrics[name]
            yield f"{name}: {old:.4g} → {new:.4g}" + (f" ({new / old - 1:+.1%})" if old else "")


def _inputs(run: RunFact, role: str) -> list[ArtifactRef]:
    return [edge.artifact for edge in run.inputs if edge.role == role]


def _digests(run: RunFact, role: str) -> list[str]:
    return [artifact.digest for artifact in _inputs(run, role)]


def _limited(lines: Sequence[str]) -> tuple[str, ...]:
    return (*lines[:_MOST], *([f"… and {len(lines) - _MOST} more"] if len(lines) > _MOST else []))


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"
