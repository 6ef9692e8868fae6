"""The graph around a run or an artifact: what made it, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Select, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import ArtifactNotFound
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Graph, GraphEdge, Node
from chapkit_flows.lineage.tables import (
    ArtifactRow,
    CodeVersionRow,
    ConfigVersionRow,
    RunArtifactRow,
    RunRow,
)
from chapkit_flows.refs import check_id

MOST_NODES = 10_000  # every database takes so many values in one statement

Heading = Literal["up", "down"]
End = Literal["run", "artifact"]


def lineage(
    database: Database,
    start_id: str,
    *,
    up: bool = True,
    down: bool = True,
    depth: int | None = None,
    limit: int = 500,
) -> Graph:
    """What a run or an artifact was made from (up) and what was made from it (down).

    Args:
        database: To read.
        start_id: Of a run or an artifact.
        up: Follow the data back to its origins.
        down: Follow the data to everything it went into, the newest first.
        depth: How many runs to pass in each direction, the start included if it is one; None for all.
        limit: On runs and artifacts together, at most 10 000; config and code versions come on top.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: Neither a run nor an artifact has that id.
    """
    wanted = check_id(start_id)
    with database.read() as session:
        end = find_end(session, wanted)
        part = _Part(limit=min(limit, MOST_NODES), ends={wanted: end})
        steps = None if depth is None else 2 * depth - (end == "run" and depth > 0)
        if up:
            _follow(session, part, "up", steps)
        if down:
            _follow(session, part, "down", steps)
        things = _load_artifacts(session, part) | _load_runs(session, part)
        versions = (*_load_configs(session, part), *_load_codes(session, part))
    nodes = (*(things[found] for found in part.ends), *versions)
    return Graph(nodes=nodes, edges=tuple(part.arrows), truncated=part.truncated)


@dataclass(kw_only=True)
class _Part:
    """What was found so far: runs and artifacts in the order of discovery, and the arrows."""

    limit: int
    ends: dict[str, End]
    arrows: dict[GraphEdge, None] = field(default_factory=dict)
    truncated: bool = False

    @property
    def room(self) -> int:
        return max(0, self.limit - len(self.ends))

    def ids(self, end: End) -> list[str]:
        return [found for found, its_end in self.ends.items() if its_end == end]

    def sources(self, role: str) -> set[str]:
        """The version digests from which arrows of a role start."""
        return {arrow.source for arrow in self.arrows if arrow.role == role and arrow.source not in self.ends}


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


def _follow(session: Session, part: _Part, heading: Heading, steps: int | None) -> None:
    """Breadth first from the start, with one statement for each step."""
    start_id, end = next(iter(part.ends.items()))
    frontier = [start_id]
    while frontier and steps != 0:
        rows = session.execute(_next_edges(frontier, end, heading, part.room + 1)).all()
        part.truncated |= len(rows) > part.room
        end = "artifact" if end == "run" else "run"
        frontier = [far for near, far, role in rows if _reach(part, (near, far, role), end, heading)]
        steps = None if steps is None else steps - 1


def _next_edges(frontier: Sequence[str], end: End, heading: Heading, limit: int) -> Select[Any]:
    """The edges that lead away from some runs or some artifacts: near end, far end and role."""
    near, far = col(RunArtifactRow.run_id), col(RunArtifactRow.artifact_id)
    if end == "artifact":
        near, far = far, near
    direction = "output" if (heading == "up") == (end == "artifact") else "input"
    return (
        select(near, far, col(RunArtifactRow.role))
        .where(near.in_(frontier), col(RunArtifactRow.direction) == direction)
        .order_by(near.desc(), far.desc())
        .limit(limit)
    )


def _reach(part: _Part, edge: tuple[str, str, str], end: End, heading: Heading) -> bool:
    """Add an edge and its far end if there is room; tell whether that end is new."""
    near, far, role = edge
    new = far not in part.ends
    if new and not part.room:
        return False
    part.ends.setdefault(far, end)
    source, target = (far, near) if heading == "up" else (near, far)
    part.arrows[GraphEdge(source=source, target=target, role=role)] = None
    return new


def _load_artifacts(session: Session, part: _Part) -> dict[str, Node]:
    rows = session.scalars(select(ArtifactRow).where(col(ArtifactRow.id).in_(part.ids("artifact"))))
    return {
        row.id: Node(
            id=row.id,
            type="artifact",
            label=f"{row.kind.replace('_', ' ')} {row.details.get('name') or ''}".rstrip(),
            kind=row.kind,
            status=row.status,
            digest=row.digest,
            created_at=row.created_at,
        )
        for row in rows
    }


def _load_runs(session: Session, part: _Part) -> dict[str, Node]:
    """The runs; adds the arrows from their config and code versions."""
    nodes = {}
    for row in session.scalars(select(RunRow).where(col(RunRow.id).in_(part.ids("run")))):
        nodes[row.id] = Node(
            id=row.id,
            type="run",
            label=f"{row.flow} {row.model}",
            kind=row.flow,
            status=row.status,
            created_at=row.started_at,
        )
        for digest, role in ((row.config_digest, "config"), (row.code_digest, "code")):
            if digest is not None:
                part.arrows[GraphEdge(source=digest, target=row.id, role=role)] = None
    return nodes


def _load_configs(session: Session, part: _Part) -> Iterator[Node]:
    table = ConfigVersionRow
    columns = (col(table.digest), col(table.name), col(table.block_type), col(table.created_at))
    query = select(*columns).where(col(table.digest).in_(part.sources("config")))
    for digest, name, block_type, created_at in session.execute(query):
        yield Node(
            id=digest,
            type="config",
            label=name or block_type,
            kind=block_type,
            digest=digest,
            created_at=created_at,
        )


def _load_codes(session: Session, part: _Part) -> Iterator[Node]:
    table = CodeVersionRow
    columns = (col(table.digest), col(table.git_commit), col(table.dirty), col(table.python))
    query = select(*columns).where(col(table.digest).in_(part.sources("code")))
    for digest, commit, dirty, python in session.execute(query):
        label = f"{commit[:10]}{' with changes' if dirty else ''}" if commit else f"Python {python}"
        yield Node(id=digest, type="code", label=label, digest=digest)
