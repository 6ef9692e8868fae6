"""The commands about differences: compare, why, report."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from chapkit_flows.artifacts.codecs import load
from chapkit_flows.cli.configs import find_config
from chapkit_flows.cli.models import find_model_version
from chapkit_flows.cli.output import how_long, print_facts, print_json, print_line, print_table
from chapkit_flows.configs.diff import write_value
from chapkit_flows.data.tables import read_table
from chapkit_flows.errors import ConfigNotFound, DataError, EvaluationError, ModelVersionNotFound, RunNotFound
from chapkit_flows.evaluation.comparison import Comparison, compare
from chapkit_flows.lineage.experiments import find_experiment
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_artifact, get_run, producer
from chapkit_flows.ranking import rank
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.reports.causes import Explanation, explain
from chapkit_flows.reports.runs import RunComparison, Subject, compare_subjects
from chapkit_flows.resources import Resources, open_resources

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)
_FLOW_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SHOWN = 60  # characters of a cell


def compare_(options: argparse.Namespace) -> int:
    """Print what differs, side by side; 1 if something does."""
    resources = open_resources()
    subjects = _unique([one for text in options.things for one in _find_subjects(resources, text, options.metric)])
    if len(subjects) < 2:
        raise DataError("There is nothing to compare it with. Name two things or more.")
    scores, note = _compare_scores(resources, subjects, options.metric)
    found = compare_subjects(subjects, scores, note)
    if options.json:
        print_json(found.to_dict(everything=options.all))
    elif options.md:
        print_line(_markdown(found, everything=options.all))
    else:
        _print_comparison(found, everything=options.all)
    return 0 if found.is_same else 1


def why(options: argparse.Namespace) -> int:
    """Print why two results differ; 1 if they do."""
    resources = open_resources()
    before, after = (find_run(resources, text) for text in (options.a, options.b))

    def read(artifact: ArtifactRef) -> pd.DataFrame:
        with resources.store.open(artifact.digest) as file:
            return read_table(file, media_type=artifact.media_type)

    trainings = tuple(run for run in (_training_of(resources, one) for one in (before, after)) if run)
    pair = (trainings[0], trainings[1]) if len(trainings) == 2 else None
    found = explain(before, after, read=read, trainings=pair)
    if options.json:
        print_json({"a": before.id, "b": after.id} | found.to_dict())
    else:
        _print_explanation(before, after, found)
    return 0 if found.is_same else 1


def _find_subjects(resources: Resources, text: str, metric: str) -> list[Subject]:
    """What a text names; of an experiment its trials that were scored, the best first."""
    kind, _, name = text.partition(":")
    if kind != "experiment":
        return [find_subject(resources, text)]
    found = rank(resources, find_experiment(resources.database, name), metric)
    return [
        Subject(label=f"{name} {row.trial.number}", run=row.run, config=row.run.config)
        for row in found.rows
        if row.score is not None
    ]


def find_subject(resources: Resources, text: str) -> Subject:
    """What a text names: a run, an artifact, a model version, or a config as `configs diff` takes it.

    Raises:
        ChapkitFlowsError: There is no such thing.
    """
    name, at, _ = text.rpartition("@")
    if _ULID.fullmatch(text) or _FLOW_RUN.fullmatch(text):
        run = find_run(resources, text)
        return Subject(label=f"{run.model} {run.flow} {text[-6:]}", run=run, config=run.config)
    if at and "/" not in name:
        try:
            run = find_run(resources, text)
            return Subject(label=text, run=run, config=run.config)
        except ModelVersionNotFound as error:
            unknown = error
            if not text.rpartition("@")[2].isdecimal():
                raise
        try:
            label, ref = find_config(resources.database, text)
        except ConfigNotFound:
            raise unknown from None
        return Subject(label=label, config=ref)
    label, ref = find_config(resources.database, text)
    return Subject(label=label, config=ref)


def find_run(resources: Resources, text: str) -> RunFact:
    """The run that a text names, or that made the artifact or model version that it names.

    Raises:
        ChapkitFlowsError: There is no such thing, or no run made it.
    """
    database = resources.database
    if "@" in text:
        return _maker(resources, find_model_version(database, text).artifact_id)
    try:
        return get_run(database, text)
    except RunNotFound:
        if not _ULID.fullmatch(text):
            raise
    get_artifact(database, text)
    return _maker(resources, text)


def _maker(resources: Resources, artifact_id: str) -> RunFact:
    run = producer(resources.database, artifact_id)
    if run is None:
        raise RunNotFound(f"No run made {artifact_id}: it came from outside. Name a run, or something that a run made.")
    return run


def _training_of(resources: Resources, run: RunFact) -> RunFact | None:
    """The run that made the model which a run predicted with."""
    given = [edge.artifact.id for edge in run.inputs if edge.role == "model"]
    return producer(resources.database, given[0]) if given else None


def _unique(subjects: Sequence[Subject]) -> list[Subject]:
    """The same under labels of which no two are equal: the scores are compared by them."""
    labels = [one.label for one in subjects]
    return [
        replace(one, label=f"{one.label} ({number})") if labels.count(one.label) > 1 else one
        for number, one in enumerate(subjects, start=1)
    ]


def _compare_scores(resources: Resources, subjects: Sequence[Subject], metric: str) -> tuple[Comparison | None, str]:
    made = [(one.label, one.run.find_output("scores")) for one in subjects if one.run]
    scores = {label: load(resources.store, artifact, allow_pickle=False) for label, artifact in made if artifact}
    if len(scores) < len(subjects):
        return None, ""
    try:
        return compare(scores, metric, reference=subjects[0].label), ""
    except EvaluationError as error:
        return None, str(error)


def _print_comparison(found: RunComparison, *, everything: bool) -> None:
    rows = [row for row in found.rows if everything or not row.is_same]
    if rows:
        print_table(("", "", *found.labels), [(row.section, row.name, *map(_cell, row.values)) for row in rows])
    if found.scores is not None:
        print_line(f"\n{found.scores.metric} against {found.scores.reference}, on the folds that both have")
        print_table(_SCORE_HEAD, _score_rows(found.scores))
    if found.note:
        print_line(f"\nThe scores are not compared: {found.note}")
    if found.is_same:
        print_line(f"{'' if not rows else chr(10)}Config, data, code, packages and scores are the same.")


_SCORE_HEAD = ("", "score", "reference", "skill", "difference, 95 %", "p", "pairs", "note")


def _score_rows(scores: Comparison) -> list[tuple[str, ...]]:
    return [
        (
            row.model,
            f"{row.mean:.4g}",
            f"{row.reference_mean:.4g}",
            "" if row.skill is None else f"{row.skill:+.1%}",
            f"{row.difference:+.4g}" + ("" if row.low is None else f" ({row.low:.4g} to {row.high:.4g})"),
            "" if row.p_value is None else f"{row.p_value:.3f}",
            str(row.n_pairs),
            row.note,
        )
        for row in scores.rows
    ]


def _markdown(found: RunComparison, *, everything: bool) -> str:
    rows = [row for row in found.rows if everything or not row.is_same]
    parts = []
    if rows:
        cells = [(row.section, row.name, *(f"`{_cell(value)}`" if value is not None else "" for value in row.values))
                 for row in rows]  # fmt: skip
        parts.append(_md_table(("", "", *found.labels), cells))
    if found.scores is not None:
        parts.append(f"`{found.scores.metric}` against `{found.scores.reference}`:")
        parts.append(_md_table(_SCORE_HEAD, _score_rows(found.scores)))
    if found.is_same:
        parts.append("Config, data, code, packages and scores are the same.")
    return "\n\n".join([*parts, *([found.note] if found.note else [])])


def _md_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    """A value in a few letters: digests by their beginning, numbers with the digits that tell them apart."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith("sha256:"):
        return value[7:19]
    text = f"{value:.5g}" if isinstance(value, float) and value % 1 else write_value(value).strip('"')
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _print_explanation(before: RunFact, after: RunFact, found: Explanation) -> None:
    for name, run in (("A", before), ("B", after)):
        print_facts([(name, f"{run.model} {run.flow}  {run.id}  {run.status}  "
                      f"{how_long(run.started_at, run.finished_at)}")])  # fmt: skip
    said = {True: "The results are the same bytes.", False: "The results differ.", None: "One of them has no result."}
    print_line(f"\n{said[found.is_same]}")
    for number, cause in enumerate(found.causes, start=1):
        print_line(f"\n{number}. {cause.text}")
        for line in cause.details:
            print_line(f"   {line}")
    if found.scores:
        print_line("\nScores")
        for line in found.scores:
            print_line(f"   {line}")
    if found.equal:
        print_line(f"\nThe same: {', '.join(found.equal)}")
