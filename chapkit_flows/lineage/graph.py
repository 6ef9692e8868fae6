"""The graph around a run or an artifact: what made it, and what was made from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import ArtifactNotFound
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Cursor, Graph, GraphEdge, Node, name_in
from chapkit_flows.lineage.staleness import Past, find_stale, load_past
from chapkit_flows.lineage.tables import (
    ArtifactRow,
    CodeVersionRow,
    ConfigVersionRow,
    ReadingRow,
    RunArtifactRow,
    RunRow,
)
from chapkit_flows.refs import check_id

MOST_NODES = 10_000  # every database takes so many values in one statement

Heading = Literal["up", "down"]
End = Literal["run", "artifact"]


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
        part = _Part(limit=min(limit, MOST_NODES), ends={wanted: end}, before=before)
        steps = None if depth is None else 2 * depth - (end == "run" and depth > 0)
        if up:
            _follow(session, part, "up", steps)
        if down:
            _follow(session, part, "down", steps)
        things = _load_artifacts(session, part) | _load_runs(session, part)
        versions = (*_load_configs(session, part), *_load_codes(session, part))
        # What a walk to all origins has found need not be looked for again.
        walked = up and not down and not part.more and before is None
        stale = find_stale(session, part.past() if walked else load_past(session, list(part.ends)))
        edges = _name_arrows(session, part)
    nodes = (*(replace(things[found], stale=stale.get(found, ())) for found in part.ends), *versions)
    return Graph(nodes=nodes, edges=edges, truncated=part.truncated, more=tuple(part.more))


@dataclass(kw_only=True)
class _Part:
    """What was found so far: runs and artifacts in the order of discovery, and the arrows."""

    limit: int
    ends: dict[str, End]
    before: str | None = None
    arrows: dict[GraphEdge, None] = field(default_factory=dict)
    given: dict[tuple[str, str], str] = field(default_factory=dict)  # parameters by run and role
    datasets: set[str] = field(default_factory=set)
    more: list[Cursor] = field(default_factory=list)
    truncated: bool = False

    @property
    def room(self) -> int:
        return max(0, self.limit - len(self.ends))

    def ids(self, end: End) -> list[str]:
        return [found for found, its_end in self.ends.items() if its_end == end]

    def past(self) -> Past:
        """The edges between what was found."""
        past = Past(asked=list(self.ends))
        for arrow in self.arrows:
            source, target = self.ends.get(arrow.source), self.ends.get(arrow.target)
            if source == "artifact":
                past.inputs[arrow.target, arrow.source] = None
            elif source == "run" and target == "artifact":
                past.outputs[arrow.source, arrow.target] = None
        return past

    def given_name(self, arrow: GraphEdge) -> str | None:
        """What a run was told to read, which is what it read where there is no reading."""
        return self.given.get((arrow.target, arrow.role)) if arrow.source in self.datasets else None

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
    """Breadth first from the start, with one statement for each step; then note where there is more."""
    start_id, end = next(iter(part.ends.items()))
    frontier, before = [start_id], part.before
    left: dict[End, list[str]] = {"run": [], "artifact": []}
    while frontier and steps != 0:
        rows = session.execute(_next_edges(frontier, end, heading, (part.room + 1, before))).all()
        if len(rows) > part.room:
            part.truncated = True
            rows = _cut(part, rows, heading, before)
            # The frontier is followed from the newest on: what is older than the last place was not looked at.
            left[end] += [near for near in frontier if near < part.more[-1].node]
        end, before = ("artifact" if end == "run" else "run"), None
        frontier = [far for near, far, role in rows if _reach(part, (near, far, role), end, heading)]
        steps = None if steps is None else steps - 1
    left[end] += frontier
    for its_end, ids in left.items():
        found = _find_open(session, ids, its_end, heading) if ids else set()
        part.more += [Cursor(node=near, heading=heading) for near in ids if near in found]


def _cut(part: _Part, rows: Sequence[Any], heading: Heading, before: str | None) -> Sequence[Any]:
    """The rows for which there is room, and a cursor at the first for which there is none."""
    near, far, _ = rows[-1]
    kept = [row for row in rows if (row[0], row[1]) != (near, far)]
    mine = [row[1] for row in kept if row[0] == near]
    part.more.append(Cursor(node=near, heading=heading, before=mine[-1] if mine else before))
    return kept


def _next_edges(frontier: Sequence[str], end: End, heading: Heading, page: tuple[int, str | None]) -> Select[Any]:
    """The edges that lead away from some runs or some artifacts: near end, far end and role."""
    near, far, direction = _columns(end, heading)
    limit, before = page
    query = select(near, far, col(RunArtifactRow.role)).where(near.in_(frontier), direction)
    if before is not None:
        query = query.where(far < before)
    return query.order_by(near.desc(), far.desc()).limit(limit)


def _find_open(session: Session, ids: Sequence[str], end: End, heading: Heading) -> set[str]:
    """Those of some runs or artifacts from which an edge leads away."""
    near, _, direction = _columns(end, heading)
    own = col(RunRow.id) if end == "run" else col(ArtifactRow.id)
    leads = select(near).where(near == own, direction).exists()
    return set(session.scalars(select(own).where(own.in_(ids), leads)))


def _columns(end: End, heading: Heading) -> tuple[Any, Any, ColumnElement[bool]]:
    """The near end of edges, their far end, and in which direction they point."""
    near, far = col(RunArtifactRow.run_id), col(RunArtifactRow.artifact_id)
    if end == "artifact":
        near, far = far, near
    direction = "output" if (heading == "up") == (end == "artifact") else "input"
    return near, far, col(RunArtifactRow.direction) == direction


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
    rows = session.scalars(select(ArtifactRow).where(col(ArtifactRow.id).in_(part.ids("artifact")))).all()
    part.datasets = {row.id for row in rows if row.kind == "dataset"}
    return {
        row.id: Node(
            id=row.id,
            type="artifact",
            label=f"{row.kind.replace('_', ' ')} {row.details.get('name') or ''}".rstrip(),
            kind=row.kind,
            status=row.status,
            digest=row.digest,
            created_at=row.created_at,
            level=row.level,
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
        part.given |= {(row.id, role): name for role, uri in row.parameters.items() if (name := name_in(uri))}
        for digest, role in ((row.config_digest, "config"), (row.code_digest, "code")):
            if digest is not None:
                part.arrows[GraphEdge(source=digest, target=row.id, role=role)] = None
    return nodes


def _name_arrows(session: Session, part: _Part) -> tuple[GraphEdge, ...]:
    """The arrows, those from datasets with the name by which the run read them."""
    runs = part.ids("run")
    columns = (col(ReadingRow.run_id), col(ReadingRow.artifact_id), col(ReadingRow.role), col(ReadingRow.uri))
    query = select(*columns).where(col(ReadingRow.run_id).in_(runs)).order_by(col(ReadingRow.id))
    read = {(run, artifact, role): name_in(uri) for run, artifact, role, uri in session.execute(query)}
    return tuple(
        replace(arrow, name=read.get((arrow.target, arrow.source, arrow.role)) or part.given_name(arrow))
        for arrow in part.arrows
    )


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
