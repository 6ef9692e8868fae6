"""Runs side by side: config, data, parameters, code, packages, scores; pure functions over what is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from chapkit_flows.configs.diff import Path, write_path
from chapkit_flows.evaluation.comparison import Comparison
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.refs import ArtifactRef, ConfigRef

Section = Literal["run", "config", "data", "parameters", "code", "packages", "scores", "effort"]

OF_SWEEP = ("experiment", "sweep", "values")
"""Parameters of a trial that say which sweep made it; its values are in its config."""
EFFORT = ("model_seconds", "reused_folds")
_PROFILE = ("rows", "places", "first", "last")
_UNCOUNTED = ("run", "effort")
_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One of the things that are compared.

    Attributes:
        label: How it is called: unique among those that are compared.
        run: The run that it is, or that made it; None for a config.
        config: That of the run, or the config itself.
    """

    label: str
    run: RunFact | None = None
    config: ConfigRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """One fact of all things.

    Attributes:
        values: One per thing, in their order; None where it has none.
        is_same: Whether all are equal, also in their type.
    """

    section: Section
    name: str
    values: tuple[Any, ...]
    is_same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Things side by side.

    Attributes:
        labels: Of the things.
        rows: All facts that at least one has, in the order of the sections.
        scores: What tests say of the scores, where all are backtests with folds in common.
        note: Why there are no such tests, where somebody might expect them.
    """

    labels: tuple[str, ...]
    rows: tuple[ComparedRow, ...]
    scores: Comparison | None = None
    note: str = ""

    @property
    def differing(self) -> tuple[ComparedRow, ...]:
        """The facts that are not the same everywhere."""
        return tuple(row for row in self.rows if not row.is_same)

    @property
    def is_same(self) -> bool:
        """Whether nothing differs but when the runs ran, how long that took and how they are called."""
        return all(row.section in _UNCOUNTED for row in self.differing)

    def to_dict(self, *, everything: bool = False) -> dict[str, Any]:
        """As JSON values: what differs, or everything."""
        rows = self.rows if everything else self.differing
        return {
            "same": self.is_same,
            "compared": list(self.labels),
            "rows": [asdict(row) | {"values": list(row.values)} for row in rows],
            "scores": self.scores.as_json() if self.scores else None,
            "note": self.note,
        }


def compare_subjects(subjects: Sequence[Subject], scores: Comparison | None = None, note: str = "") -> RunComparison:
    """Put things side by side; where one of them is only a config, only their configs.

    Args:
        subjects: Two or more.
        scores: Of the same things, under their labels.
        note: Why there are no scores.
    """
    rows = _rows("config", [one.config for one in subjects], _config_facts)
    runs = [one.run for one in subjects if one.run is not None]
    if len(runs) == len(subjects):
        sections: list[tuple[Section, Callable[[RunFact], Mapping[str, Any]]]] = [
            ("data", _data_facts),
            ("parameters", _parameter_facts),
            ("code", _code_facts),
            ("packages", lambda run: dict(run.code.packages) if run.code else {}),
            ("scores", lambda run: {name: value for name, value in run.metrics.items() if name not in EFFORT}),
            ("effort", _effort_facts),
        ]
        rows = [*_rows("run", runs, _run_facts), *rows]
        for section, facts in sections:
            rows += _rows(section, runs, facts)
    return RunComparison(labels=tuple(one.label for one in subjects), rows=tuple(rows), scores=scores, note=note)


def _rows(section: Section, things: Sequence[Any], facts_of: Callable[[Any], Mapping[str, Any]]) -> list[ComparedRow]:
    facts = [facts_of(thing) for thing in things]
    names = list(dict.fromkeys(name for each in facts for name in each))
    rows = []
    for name in names:
        values = [each.get(name, _ABSENT) for each in facts]
        is_same = all(_is_equal(value, values[0]) for value in values)
        shown = tuple(None if value is _ABSENT else value for value in values)
        rows.append(ComparedRow(section=section, name=name, values=shown, is_same=is_same))
    return rows


def _is_equal(one: Any, other: Any) -> bool:
    # Two scores that are not defined are the same.
    return type(one) is type(other) and (one == other or (one != one and other != other))


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[str, Any]]:
    """The single values of nested mappings and lists, by their paths; an empty one is a value."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    else:
        yield write_path(path), value


def _config_facts(config: ConfigRef | None) -> dict[str, Any]:
    if config is None:
        return {}
    return {"(type)": config.block_type, **(dict(leaves(config.content)) if config.content else {})}


def _run_facts(run: RunFact) -> dict[str, Any]:
    facts = {"flow": run.flow, "model": run.model, "status": run.status, "defined in": run.entrypoint}
    facts |= {"config name": run.config.name if run.config else None, "error": run.error}
    return {name: value for name, value in facts.items() if value is not None}


def _data_facts(run: RunFact) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for edge in run.inputs:
        counts[edge.role] += 1
        role = edge.role if counts[edge.role] == 1 else f"{edge.role} {counts[edge.role]}"
        facts[role] = edge.artifact.digest
        known = edge.artifact.metadata
        facts |= {f"{role}: {name}": known[name] for name in _PROFILE if known.get(name) is not None}
    return facts


def _parameter_facts(run: RunFact) -> dict[str, Any]:
    """All but where the inputs were (equal bytes are equal data), the pictures, and which sweep it belongs to."""
    roles = {"pictures", *OF_SWEEP, *(edge.role for edge in run.inputs)}
    given = {name: value for name, value in run.parameters.items() if name not in roles}
    return dict(leaves(given)) if given else {}


def _code_facts(run: RunFact) -> dict[str, Any]:
    if run.code is None:
        return {}
    facts = {
        "commit": run.code.git_commit,
        "local changes": run.code.patch_digest,
        "model file": run.code.source_digest,
        "python": run.code.python,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _effort_facts(run: RunFact) -> dict[str, Any]:
    facts: dict[str, Any] = {name: run.metrics[name] for name in EFFORT if name in run.metrics}
    if run.finished_at is not None:
        facts = {"seconds": round((run.finished_at - run.started_at).total_seconds(), 2)} | facts
    return facts


def result_of(run: RunFact) -> ArtifactRef | None:
    """What a run was made for: the trained model, the prediction, or the scores; None if it made none."""
    made = (run.find_output(role) for role in ("model", "prediction", "scores"))
    return next((artifact for artifact in made if artifact is not None), None)
