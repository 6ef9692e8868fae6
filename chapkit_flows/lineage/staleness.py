"""What is stale: a dataset whose URI has brought another one since, and everything that was made from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import CompoundSelect, Select, and_, select, union
from sqlalchemy.orm import Session, aliased
from sqlmodel import col

from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Newer, Reading
from chapkit_flows.lineage.readings import find_newer
from chapkit_flows.lineage.tables import ReadingRow, RunArtifactRow, RunRow

_BATCH = 5_000  # values that every database takes in one statement

Reasons: TypeAlias = dict[str, dict[Newer, None]]


def stale_reasons(database: Database, ids: Iterable[str]) -> dict[str, tuple[Newer, ...]]:
    """Why runs and artifacts are stale, by id; those that are current are not among the keys.

    What a run read is stale once the URI that it read it from has brought another dataset: the newest reading
    decides, so one that brings the old content again makes it current again. A run that read the same bytes from
    somewhere else, where nothing changed, is not stale. Of a dataset that a run was given by its id any URI counts.

    Args:
        database: To read.
        ids: Of runs and artifacts.
    """
    with database.read() as session:
        return find_stale(session, load_past(session, list(dict.fromkeys(ids))))


def find_stale(session: Session, past: Past) -> dict[str, tuple[Newer, ...]]:
    """`stale_reasons` in a transaction, of what was asked about and all that lies above it."""
    newer = find_newer(session, past.datasets())
    reasons: Reasons = {
        key: dict.fromkeys(_of_dataset(key, found)) for key, found in newer.items() if key in past.asked
    }
    read = _load_readings(session, [run for run, artifact in past.inputs if artifact in newer])
    open_ends = []
    for run, artifact in past.inputs:
        uris = read.get((run, artifact))
        found = [one for one in newer.get(artifact, ()) if uris is None or one.uri_digest in uris]
        if found:
            reasons.setdefault(run, {}).update(dict.fromkeys(_of_dataset(artifact, found)))
            open_ends.append(run)
    _spread(past, reasons, open_ends)
    return {key: tuple(reasons[key]) for key in past.asked if reasons.get(key)}


@dataclass(kw_only=True)
class Past:
    """The edges above some runs and artifacts, each a run and an artifact."""

    asked: Sequence[str]
    inputs: dict[tuple[str, str], None] = field(default_factory=dict)
    outputs: dict[tuple[str, str], None] = field(default_factory=dict)

    def datasets(self) -> set[str]:
        """What may be a dataset: all that no run made."""
        made = {artifact for _, artifact in self.outputs}
        return {*self.asked, *(artifact for _, artifact in self.inputs)} - made


def load_past(session: Session, ids: Sequence[str]) -> Past:
    """All that lies above, with two statements however far that is."""
    past = Past(asked=ids)
    runs: set[str] = set()
    for begin in range(0, len(ids), _BATCH):
        runs |= set(session.scalars(_find_runs(ids[begin : begin + _BATCH])))
    # Not one statement for both: PostgreSQL cannot tell how few runs there are, and reads all edges.
    known = sorted(runs)
    columns = (col(RunArtifactRow.run_id), col(RunArtifactRow.artifact_id), col(RunArtifactRow.direction))
    for begin in range(0, len(known), _BATCH):
        query = select(*columns).where(columns[0].in_(known[begin : begin + _BATCH]))
        for run, artifact, direction in session.execute(query):
            (past.inputs if direction == "input" else past.outputs)[run, artifact] = None
    return past


def _find_runs(ids: Sequence[str]) -> Select[Any]:
    """The runs among some things, those that made the others, those that made what these read, and so on."""
    first: CompoundSelect[Any] = union(
        select(col(RunRow.id).label("run_id")).where(col(RunRow.id).in_(ids)),
        select(col(RunArtifactRow.run_id)).where(
            col(RunArtifactRow.artifact_id).in_(ids), col(RunArtifactRow.direction) == "output"
        ),
    )
    above = select(first.subquery("first").c.run_id).cte("above", recursive=True)
    read, made = aliased(RunArtifactRow), aliased(RunArtifactRow)
    further = (
        select(col(made.run_id))
        .join_from(above, read, and_(col(read.run_id) == above.c.run_id, col(read.direction) == "input"))
        .join(made, and_(col(made.artifact_id) == col(read.artifact_id), col(made.direction) == "output"))
    )
    above = above.union(further)
    return select(above.c.run_id)


def _load_readings(session: Session, run_ids: Sequence[str]) -> Mapping[tuple[str, str], set[str]]:
    """The digests of the URIs from which runs read datasets, by both."""
    read: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    if run_ids:
        columns = (col(ReadingRow.run_id), col(ReadingRow.artifact_id), col(ReadingRow.uri_digest))
        for run, artifact, digest in session.execute(select(*columns).where(col(ReadingRow.run_id).in_(set(run_ids)))):
            read[run, artifact].add(digest)
    return read


def _of_dataset(artifact_id: str, found: Iterable[Reading]) -> list[Newer]:
    return [Newer(uri=one.uri, dataset=artifact_id, newer=one.artifact_id, read_at=one.read_at) for one in found]


def _spread(past: Past, reasons: Reasons, open_ends: list[str]) -> None:
    """Let the reasons of runs pass on to what they made, to the runs that read that, and so on."""
    after: defaultdict[str, list[str]] = defaultdict(list)
    for run, artifact in past.outputs:
        after[run].append(artifact)
    made = {artifact for _, artifact in past.outputs}
    for run, artifact in past.inputs:
        if artifact in made:
            after[artifact].append(run)
    while open_ends:
        near = open_ends.pop()
        for far in after.get(near, ()):
            known = reasons.setdefault(far, {})
            if not known.keys() >= reasons[near].keys():
                known.update(reasons[near])
                open_ends.append(far)
