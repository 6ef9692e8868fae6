"""Experiments: named groups of runs that are to be compared, each with a number there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import ExperimentNotFound, InvalidExperiment, LineageError
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.rows import load_runs
from chapkit_flows.lineage.tables import ExperimentRow, RunRow, TrialRow
from chapkit_flows.refs import new_id, now

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A named group of runs.

    Attributes:
        id: ULID.
        models: The names of the models that its runs are of.
    """

    name: str
    models: tuple[str, ...]
    description: str
    author: str
    created_at: datetime = field(default_factory=now)
    id: str = field(default_factory=new_id)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; times as ISO 8601."""
        return asdict(self) | {"models": list(self.models), "created_at": self.created_at.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """That a run belongs to an experiment.

    Attributes:
        id: ULID.
        number: Counts the runs of the experiment from 1.
        identity: Digest of all that its result depends on: equal ones need not be done twice.
    """

    experiment_id: str
    run_id: str
    number: int
    identity: str
    added_at: datetime = field(default_factory=now)
    id: str = field(default_factory=new_id)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; times as ISO 8601."""
        return asdict(self) | {"added_at": self.added_at.isoformat()}


def check_experiment_name(name: str) -> str:
    """Return the name.

    Raises:
        InvalidExperiment: It is not a name for an experiment.
    """
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 40 else name[:40] + "…"
        raise InvalidExperiment(
            f"{shown!r} cannot be the name of an experiment. Write up to 63 lower-case letters, digits, - and _, "
            "a letter or digit first."
        )
    return name


def open_experiment(database: Database, wanted: Experiment) -> Experiment:
    """Begin an experiment, or go on with the one of that name.

    Raises:
        InvalidExperiment: The name cannot be one, or belongs to an experiment of other models.
    """
    check_experiment_name(wanted.name)

    def work(session: Session) -> Experiment:
        row = session.scalars(_named(wanted.name)).first()
        if row is None:
            # Another process may take the same name meanwhile: the transaction is then run again.
            session.execute(insert(ExperimentRow), [_to_row(wanted)])
            return wanted
        there = _to_experiment(row)
        others = [model for model in wanted.models if model not in there.models]
        if others:
            raise InvalidExperiment(
                f"The experiment {there.name} is about {' and '.join(there.models)}, begun {there.created_at:%Y-%m-%d} "
                f"by {there.author}: {' and '.join(others)} cannot join it. Choose another name."
            )
        return there

    return database.transact(work)


def add_trial(
    database: Database,
    experiment: Experiment,
    run_id: str,
    *,
    identity: str,
    keep: Callable[[Trial], None] = lambda _: None,
) -> Trial:
    """Give a recorded run the next number of an experiment.

    Args:
        database: To write.
        experiment: One that was begun.
        run_id: Of the run.
        identity: Digest of all that its result depends on.
        keep: Called with the trial before it counts; again, if another process took its number meanwhile.
    """
    first = Trial(experiment_id=experiment.id, run_id=run_id, number=1, identity=identity)

    def work(session: Session) -> Trial:
        of_it = col(TrialRow.experiment_id) == experiment.id
        last = session.scalar(select(func.max(TrialRow.number)).where(of_it))
        trial = replace(first, number=(last or 0) + 1)
        keep(trial)
        # Another process may take the same number meanwhile: the transaction is then run again.
        session.execute(insert(TrialRow), [asdict(trial)])
        return trial

    return database.transact(work)


def find_experiment(database: Database, name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ExperimentNotFound: There is none.
    """
    with database.read() as session:
        row = session.scalars(_named(name)).first() if _NAME.fullmatch(name) else None
        if row is None:
            shown = name if len(name) <= 40 else name[:40] + "…"
            raise ExperimentNotFound(
                f"There is no experiment {shown!r}. List them with: chapkit-flows experiments list"
            )
        return _to_experiment(row)


def list_experiments(database: Database) -> list[tuple[Experiment, int]]:
    """All experiments, the last begun first, each with the number of its runs."""
    counts = select(col(TrialRow.experiment_id), func.count()).group_by(col(TrialRow.experiment_id))
    with database.read() as session:
        trials: dict[str, int] = dict(session.execute(counts).tuples().all())
        rows = session.scalars(select(ExperimentRow).order_by(col(ExperimentRow.id).desc()))
        return [(_to_experiment(row), trials.get(row.id, 0)) for row in rows]


def load_trials(database: Database, experiment: Experiment) -> list[tuple[Trial, RunFact]]:
    """The runs of an experiment, in the order of their numbers."""
    query = (
        select(TrialRow, RunRow)
        .join(RunRow, col(RunRow.id) == col(TrialRow.run_id))
        .where(col(TrialRow.experiment_id) == experiment.id)
        .order_by(col(TrialRow.number))
    )
    with database.read() as session:
        found = session.execute(query).all()
        runs = {run.id: run for run in load_runs(session, [row for _, row in found])} if found else {}
        return [(_to_trial(trial), runs[trial.run_id]) for trial, _ in found]


def restore_experiments(database: Database, experiments: Sequence[Experiment], trials: Sequence[Trial]) -> int:
    """Record experiments and the runs in them as they were recorded before; what is there stays.

    Returns:
        How many were not there. Where a name was taken again while the database was lost, the runs of both are those
        of the one that is there, and numbered by their time.
    """

    def work(session: Session) -> int:
        there = {row.name: row.id for row in session.scalars(select(ExperimentRow))}
        ids = {one.id: there.setdefault(one.name, one.id) for one in sorted(experiments, key=lambda one: one.id)}
        known = set(session.scalars(select(col(ExperimentRow.id))))
        new = [one for one in experiments if ids[one.id] == one.id and one.id not in known]
        if new:
            session.execute(insert(ExperimentRow), list(map(_to_row, new)))
        merged = [replace(one, experiment_id=ids.get(one.experiment_id, one.experiment_id)) for one in trials]
        return len(new) + sum(
            _merge(session, experiment_id, [one for one in merged if one.experiment_id == experiment_id])
            for experiment_id in sorted({one.experiment_id for one in merged})
        )

    return database.transact(work)


def _merge(session: Session, experiment_id: str, trials: Sequence[Trial]) -> int:
    there = list(map(_to_trial, session.scalars(_trials_of(experiment_id))))
    known = {one.id for one in there}
    new = [one for one in trials if one.id not in known]
    if not new:
        return 0
    numbers = [one.number for one in (*there, *new)]
    if len(set(numbers)) == len(numbers):
        session.execute(insert(TrialRow), list(map(asdict, new)))
        return len(new)
    in_time = sorted((*there, *new), key=lambda one: (one.added_at, one.id))
    # First to where nobody is: no two may have one number, not even for a moment.
    of_it = col(TrialRow.experiment_id) == experiment_id
    session.execute(update(TrialRow).where(of_it).values(number=-col(TrialRow.number)))
    for number, one in enumerate(in_time, start=1):
        if one.id in known:
            session.execute(update(TrialRow).where(col(TrialRow.id) == one.id).values(number=number))
        else:
            session.execute(insert(TrialRow), [asdict(replace(one, number=number))])
    return len(new)


def experiment_from_dict(document: Mapping[str, Any]) -> Experiment:
    """The experiment that `Experiment.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    try:
        moment = datetime.fromisoformat(document["created_at"])
        return Experiment(**(dict(document) | {"created_at": moment, "models": tuple(document["models"])}))
    except (KeyError, TypeError, ValueError) as error:
        raise LineageError(f"The document is no experiment: {error!r}. Restore it from a backup.") from error


def trial_from_dict(document: Mapping[str, Any]) -> Trial:
    """The trial that `Trial.to_dict` wrote.

    Raises:
        LineageError: It is no such document.
    """
    try:
        return Trial(**(dict(document) | {"added_at": datetime.fromisoformat(document["added_at"])}))
    except (KeyError, TypeError, ValueError) as error:
        raise LineageError(f"The document is no trial: {error!r}. Restore it from a backup.") from error


def _named(name: str) -> Any:
    return select(ExperimentRow).where(col(ExperimentRow.name) == name)


def _trials_of(experiment_id: str) -> Any:
    return select(TrialRow).where(col(TrialRow.experiment_id) == experiment_id).order_by(col(TrialRow.number))


def _to_row(experiment: Experiment) -> dict[str, Any]:
    return asdict(experiment) | {"models": list(experiment.models)}


def _to_experiment(row: ExperimentRow) -> Experiment:
    return Experiment(
        id=row.id,
        name=row.name,
        models=tuple(row.models),
        description=row.description,
        author=row.author,
        created_at=row.created_at,
    )


def _to_trial(row: TrialRow) -> Trial:
    return Trial(
        id=row.id,
        experiment_id=row.experiment_id,
        run_id=row.run_id,
        number=row.number,
        identity=row.identity,
        added_at=row.added_at,
    )
