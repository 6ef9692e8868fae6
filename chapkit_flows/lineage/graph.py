"""The graph around a run or an artifact: what made it, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from sqlalchemy import Row, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import ArtifactNotFound
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Cursor, Graph, GraphEdge, Node, name_in
from chapkit_flows.lineage.staleness import Past, find_stale, load_past
from chapkit_flows.lineage.tables import ArtifactRow, CodeVersionRow, ConfigVersionRow, ReadingRow, RunRow
from chapkit_flows.lineage.walks import End, Part, follow
from chapkit_flows.refs import check_id

MOST_NODES = 10_000  # every database takes so many values in one statement

_Names: TypeAlias = dict[tuple[str, str, str], str]  # by run, dataset and role


def lineage(
    database: Database,
    start: str | Cursor,
    *,
    up: bool = True,
    down: bool = True,
    depth: int | None = None,
    limit: int = 500,
) -> Graph:
    """What a run or an artifact was made from (up) and what was made from it (down).

    Args:
        database: To read.
        start: The id of a run or an artifact, or a cursor of a graph before: then its neighbours after the last that
            was shown. What is recorded meanwhile moves nothing to another page.
        up: Follow the data back to its origins.
        down: Follow the data to everything it went into, the newest first.
        depth: How many runs to pass in each direction, the start included if it is one; None for all.
        limit: On runs and artifacts together, at most 10 000; config and code versions come on top.

    Raises:
        InvalidId: It is not an id, or the cursor holds none.
        ArtifactNotFound: Neither a run nor an artifact has that id.
    """
    cursor = start if isinstance(start, Cursor) else Cursor(node=start, heading="up" if up else "down")
    wanted = check_id(cursor.node)
    before = None if cursor.before is None else check_id(cursor.before)
    with database.read() as session:
        end = find_end(session, wanted)
        part = Part(limit=min(limit, MOST_NODES), ends={wanted: end}, before=before)
        steps = None if depth is None else 2 * depth - (end == "run" and depth > 0)
        if up:
            follow(session, part, "up", steps)
        if down:
            follow(session, part, "down", steps)
        artifacts, runs = _load_artifacts(session, part.ids("artifact")), _load_runs(session, part.ids("run"))
        names = _load_names(session, part, runs, {row.id for row in artifacts if row.kind == "dataset"})
        # What a walk to all origins has found need not be looked for again.
        walked = up and not down and not part.more and before is None
        stale = find_stale(session, _past(part) if walked else load_past(session, list(part.ends)))
    things = {row.id: _artifact_node(row) for row in artifacts} | {row.id: _run_node(row) for row in runs}
    nodes = [replace(things[one], stale=stale[one]) if one in stale else things[one] for one in part.ends]
    edges = [
        GraphEdge(source=source, target=target, role=role, name=names.get((target, source, role)) or None)
        for source, target, role in part.arrows
    ]
    return Graph(
        nodes=(*nodes, *_version_nodes(runs)),
        edges=(*edges, *_version_edges(runs)),
        truncated=part.truncated,
        more=tuple(part.more),
    )


def find_end(session: Session, start_id: str, *, lock: bool = False) -> End:
    """Tell whether an id is that of a run or of an artifact.

    Args:
        session: In a transaction.
        start_id: A well-formed id.
        lock: Let other writers that lock the same thing wait until the transaction ends.

    Raises:
        ArtifactNotFound: It is neither.
    """
    ends: tuple[tuple[End, Any], ...] = (("artifact", ArtifactRow), ("run", RunRow))
    for end, table in ends:
        query = select(col(table.id)).where(col(table.id) == start_id)
        if session.scalar(query.with_for_update() if lock else query) is not None:
            return end
    raise ArtifactNotFound(
        f"No artifact and no run has the id {start_id}. List them with: chapkit-flows artifacts list, "
        "or chapkit-flows runs list"
    )


def _past(part: Part) -> Past:
    """The edges between what was found."""
    past = Past(asked=list(part.ends))
    for source, target, _ in part.arrows:
        if part.ends[source] == "artifact":
            past.inputs[target, source] = None
        else:
            past.outputs[source, target] = None
    return past


def _load_artifacts(session: Session, ids: Sequence[str]) -> Sequence[Row[Any]]:
    table = ArtifactRow
    columns = [table.id, table.kind, table.level, table.status, table.digest, table.created_at, table.details]
    return session.execute(select(*map(col, columns)).where(col(table.id).in_(ids))).all() if ids else ()


def _load_runs(session: Session, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """The runs with their config and code versions."""
    if not ids:
        return ()
    config, code, run = ConfigVersionRow, CodeVersionRow, RunRow
    of_run = [run.id, run.flow, run.model, run.status, run.started_at, run.parameters, run.config_digest]
    of_versions = [config.name, config.block_type, config.created_at, code.git_commit, code.dirty, code.python]
    query = (
        select(*map(col, [*of_run, run.code_digest, *of_versions]))
        .outerjoin(config, col(config.digest) == col(run.config_digest))
        .outerjoin(code, col(code.digest) == col(run.code_digest))
    )
    return session.execute(query.where(col(run.id).in_(ids)).order_by(col(run.id).desc())).all()


def _load_names(session: Session, part: Part, runs: Sequence[Row[Any]], datasets: set[str]) -> _Names:
    """By which name each run read a dataset: that of the URI that it read, else of the one that it was given."""
    given = {(row.id, role): name_in(uri) for row in runs for role, uri in row.parameters.items()}
    names = {
        (target, source, role): given.get((target, role), "")
        for source, target, role in part.arrows
        if source in datasets
    }
    table = ReadingRow
    query = select(*map(col, [table.run_id, table.artifact_id, table.role, table.uri]))
    if names:
        in_order = query.where(col(table.run_id).in_(part.ids("run"))).order_by(col(table.id))
        read = {(run, artifact, role): name_in(uri) for run, artifact, role, uri in session.execute(in_order)}
        names |= {key: name for key, name in read.items() if name}
    return names


def _artifact_node(row: Row[Any]) -> Node:
    return Node(
        id=row.id,
        type="artifact",
        label=f"{row.kind.replace('_', ' ')} {row.details.get('name') or ''}".rstrip(),
        kind=row.kind,
        status=row.status,
        digest=row.digest,
        created_at=row.created_at,
        level=row.level,
    )


def _run_node(row: Row[Any]) -> Node:
    return Node(
        id=row.id,
        type="run",
        label=f"{row.flow} {row.model}",
        kind=row.flow,
        status=row.status,
        created_at=row.started_at,
    )


def _version_edges(runs: Sequence[Row[Any]]) -> Iterator[GraphEdge]:
    """The arrows from the config and code versions of runs."""
    for row in runs:
        for digest, role in ((row.config_digest, "config"), (row.code_digest, "code")):
            if digest is not None:
                yield GraphEdge(source=digest, target=row.id, role=role)


def _version_nodes(runs: Sequence[Row[Any]]) -> Iterator[Node]:
    """The config versions of runs, then their code versions, each once."""
    for digest, row in {row.config_digest: row for row in runs if row.config_digest is not None}.items():
        yield Node(
            id=digest,
            type="config",
            label=row.name or row.block_type,
            kind=row.block_type,
            digest=digest,
            created_at=row.created_at,
        )
    for digest, row in {row.code_digest: row for row in runs if row.code_digest is not None}.items():
        commit = row.git_commit
        label = f"{commit[:10]}{' with changes' if row.dirty else ''}" if commit else f"Python {row.python}"
        yield Node(id=digest, type="code", label=label, digest=digest)
