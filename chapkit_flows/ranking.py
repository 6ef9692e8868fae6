"""The trials of an experiment side by side: what differs in their configs, how good each is, and which is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from chapkit_flows.artifacts.codecs import load
from chapkit_flows.configs.diff import write_value
from chapkit_flows.configs.spaces import differing
from chapkit_flows.errors import ArtifactError, EvaluationError, InvalidSweep
from chapkit_flows.evaluation.comparison import ModelComparison, compare
from chapkit_flows.evaluation.metrics import metric_named
from chapkit_flows.lineage.experiments import Experiment, Trial, load_trials
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.resources import Resources

SKILL = "skill_"
# Where the data was and what it was called, and what does not change the scores.
_UNCOMPARED = ("data", "geo", "pictures", "baselines", "experiment", "sweep", "values")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One trial beside the others.

    Attributes:
        values: Those of its config that are not the same in all trials.
        score: None if it failed, or the metric is not defined for its forecasts.
        skill: In CRPS, against the baseline that the best trial is compared with.
        compared: Beside the best, on the rows that both have; None for the best itself, and where nothing can be said.
        note: Why nothing can be said.
    """

    trial: Trial
    run: RunFact
    values: Mapping[str, Any]
    score: float | None
    skill: float | None
    compared: ModelComparison | None = None
    note: str = ""
    is_best: bool = False

    @property
    def text(self) -> str:
        """Its model and the values in which it differs, in a line: `rain, n_lags = 3`."""
        return ", ".join([self.run.model, *(f"{name} = {_text(value)}" for name, value in self.values.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The trials of an experiment that can be compared, the best first, then those without a score.

    Attributes:
        metric: By which they are ordered.
        varying: The names of the config values that differ.
        baseline: The strongest of those that were scored; None for none.
        left_out: How many trials are on other data, other folds, or of older code than the last one.
    """

    experiment: Experiment
    metric: str
    varying: tuple[str, ...]
    rows: tuple[Ranked, ...]
    baseline: str | None
    left_out: int

    @property
    def best(self) -> Ranked | None:
        """The best trial; None if none has a score."""
        return next((row for row in self.rows if row.is_best), None)

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Titles and rows of a table, as plain text."""
        several = len({row.run.model for row in self.rows}) > 1
        title = metric_named(self.metric).title
        head = ["trial", *(["model"] if several else []), *self.varying, title]
        head += [f"CRPS skill against {self.baseline.replace('_', ' ')}"] if self.baseline else []
        head += ["difference to the best, 95 %", "p", "folds", "run"]
        noted = any(row.note for row in self.rows)
        rows = [self._cells(row, several=several) + ([row.note] if noted else []) for row in self.rows]
        return [*head, *(["note"] if noted else [])], rows

    def _cells(self, row: Ranked, *, several: bool) -> list[str]:
        cells = [f"{row.trial.number}{' best' if row.is_best else ''}", *([row.run.model] if several else [])]
        cells += ["" if name not in row.values else _text(row.values[name]) for name in self.varying]
        unknown = "not defined" if row.run.status == "completed" else "failed"
        cells.append(unknown if row.score is None else f"{row.score:.4g}")
        cells += [] if self.baseline is None else ["" if row.skill is None else f"{row.skill:+.1%}"]
        folds, failed = (int(row.run.metrics.get(name, 0)) for name in ("folds", "failed_folds"))
        return [*cells, *_difference(row), f"{folds - failed} of {folds}" if folds else "", row.run.id]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "experiment": self.experiment.to_dict(),
            "metric": self.metric,
            "varying": list(self.varying),
            "baseline": self.baseline,
            "left_out": self.left_out,
            "best": self.best.trial.number if self.best else None,
            "trials": [_as_json(row) for row in self.rows],
        }


def _difference(row: Ranked) -> tuple[str, str]:
    found = row.compared
    if found is None:
        return "", ""
    between = "" if found.low is None else f" ({found.low:+.4g} to {found.high:+.4g})"
    return f"{found.difference:+.4g}{between}", "" if found.p_value is None else f"{found.p_value:.3f}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else write_value(value).strip('"')


def _as_json(row: Ranked) -> dict[str, Any]:
    run = row.run
    return {
        "number": row.trial.number,
        "run_id": run.id,
        "model": run.model,
        "status": run.status,
        "error": run.error,
        "config": run.config.digest if run.config else None,
        "values": dict(row.values),
        "score": row.score,
        "skill": row.skill,
        "best": row.is_best,
        "against_best": asdict(row.compared) if row.compared else None,
        "note": row.note,
        "metrics": dict(run.metrics),
    }


def rank(resources: Resources, experiment: Experiment, metric: str = "crps") -> Ranking:
    """Put the trials of an experiment side by side: those with the data, the folds and the code of the last one.

    Raises:
        UnknownMetric: There is no such metric.
        InvalidSweep: More of the metric is better.
    """
    if metric_named(metric).orientation != "lower":
        raise InvalidSweep(f"{metric} has no best: trials are compared by a metric of which less is better.")
    found = load_trials(resources.database, experiment)
    pairs = comparable(found)
    contents = [dict(run.config.content) if run.config else {} for _, run in pairs if run.config]
    varying = tuple(differing(contents))
    rows = [_row(trial, run, varying, metric) for trial, run in pairs]
    rows.sort(key=_order)
    if rows and rows[0].score is not None:
        rows = _beside_best(resources, rows, metric)
    baseline = _strongest(rows[0].run) if rows and rows[0].is_best else None
    rows = [replace(row, skill=row.run.metrics.get(f"{SKILL}{baseline}")) for row in rows]
    return Ranking(
        experiment=experiment,
        metric=metric,
        varying=varying,
        rows=tuple(rows),
        baseline=baseline,
        left_out=len({trial.identity for trial, _ in found}) - len(alike(found)),
    )


def comparable(found: Sequence[tuple[Trial, RunFact]]) -> list[tuple[Trial, RunFact]]:
    """Of each config the last run that is whole, and only those with the data, the folds and the code of the last."""
    # The same config may have been tried with other baselines, or once without what one of its references leads to.
    last = {_subject(trial, run): (trial, run) for trial, run in sorted(alike(found), key=_is_whole)}
    return sorted(last.values(), key=lambda pair: pair[0].number)


def alike(found: Sequence[tuple[Trial, RunFact]]) -> list[tuple[Trial, RunFact]]:
    """Of the same trial the last run; and only those with the data, the folds and the code of the last trial."""
    last = list({trial.identity: (trial, run) for trial, run in found}.values())
    last.sort(key=lambda pair: pair[0].number)
    if not last:
        return []
    wanted = _conditions(last[-1][1])
    codes = {run.model: _code(run) for _, run in last}
    return [(trial, run) for trial, run in last if _conditions(run) == wanted and _code(run) == codes[run.model]]


def _subject(trial: Trial, run: RunFact) -> tuple[str, str]:
    return run.model, run.config.digest if run.config else trial.identity


def _is_whole(pair: tuple[Trial, RunFact]) -> bool:
    return pair[1].status == "completed" and not pair[1].metrics.get("failed_folds")


def _conditions(run: RunFact) -> tuple[Any, ...]:
    given = {name: value for name, value in run.parameters.items() if name not in _UNCOMPARED}
    data = sorted((edge.role, edge.artifact.digest) for edge in run.inputs)
    return given, data


def _code(run: RunFact) -> tuple[str | None, ...]:
    code = run.code
    return (code.git_commit, code.patch_digest, code.source_digest) if code else ()


def _row(trial: Trial, run: RunFact, varying: Sequence[str], metric: str) -> Ranked:
    content = run.config.content if run.config else run.parameters.get("values", {})
    return Ranked(
        trial=trial,
        run=run,
        values={name: content[name] for name in varying if name in content},
        score=run.metrics.get(metric) if run.status == "completed" else None,
        skill=None,
    )


def _order(row: Ranked) -> tuple[bool, bool, float, int]:
    """Those without failed folds first: the mean of other folds is another number."""
    partial = bool(row.run.metrics.get("failed_folds"))
    return row.score is None, partial, row.score or 0.0, row.trial.number


def _beside_best(resources: Resources, rows: Sequence[Ranked], metric: str) -> list[Ranked]:
    best = _load_scores(resources, rows[0])
    marked = [replace(rows[0], is_best=True)]
    for row in rows[1:]:
        own = _load_scores(resources, row) if row.score is not None else None
        marked.append(row if best is None or own is None else _beside(row, own, best, metric))
    return marked


def _beside(row: Ranked, own: pd.DataFrame, best: pd.DataFrame, metric: str) -> Ranked:
    try:
        (compared,) = compare({"best": best, "trial": own}, metric, reference="best").rows
    except EvaluationError as error:
        return replace(row, note=str(error))
    return replace(row, compared=compared, note=compared.note)


def _load_scores(resources: Resources, row: Ranked) -> pd.DataFrame | None:
    """The scored rows of a trial; None if their bytes are gone."""
    try:
        scores: pd.DataFrame = load(resources.store, row.run.output("scores"), allow_pickle=False)
    except ArtifactError:
        return None
    return scores


def _strongest(best: RunFact) -> str | None:
    """The baseline against which the best trial has the least skill."""
    skills = {name.removeprefix(SKILL): value for name, value in best.metrics.items() if name.startswith(SKILL)}
    return min(skills, key=lambda name: skills[name]) if skills else None
