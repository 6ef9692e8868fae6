"""Walk the graph of runs and artifacts breadth first, many steps with one statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from sqlalchemy import CTE, ColumnElement, CompoundSelect, Integer, bindparam, literal_column, select, union_all
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.lineage.facts import Cursor
from chapkit_flows.lineage.tables import ArtifactRow, RunArtifactRow, RunRow

# Steps that one statement takes: those of a walk of depth 10. MariaDB looks for each step again wherever it is named.
AHEAD: Mapping[str, int] = {"sqlite": 20, "postgresql": 20}

Heading = Literal["up", "down"]
End = Literal["run", "artifact"]
Row: TypeAlias = tuple[str, str, str]  # near end, far end and role of an edge


@dataclass(kw_only=True)
class Part:
    """What of a graph was found so far.

    Attributes:
        limit: On runs and artifacts together.
        ends: Runs and artifacts in the order of discovery, the start first.
        before: Leave out the neighbours of the start from this one on.
        arrows: In the order of discovery: source, target and role.
        more: Where there is more.
    """

    limit: int
    ends: dict[str, End]
    before: str | None = None
    arrows: dict[tuple[str, str, str], None] = field(default_factory=dict)
    more: list[Cursor] = field(default_factory=list)
    truncated: bool = False

    @property
    def room(self) -> int:
        """For how many more runs and artifacts."""
        return max(0, self.limit - len(self.ends))

    def ids(self, end: End) -> list[str]:
        """The runs that were found, or the artifacts."""
        return [found for found, its_end in self.ends.items() if its_end == end]


def follow(session: Session, part: Part, heading: Heading, steps: int | None) -> None:
    """Breadth first from the start, the newest first; then note where there is more."""
    start_id, end = next(iter(part.ends.items()))
    edges = _Edges(session, heading, part.before)
    frontier, before = [start_id], part.before
    left: dict[End, list[str]] = {"run": [], "artifact": []}
    while frontier and steps != 0:
        rows: Sequence[Row] = edges.leaving(frontier, end, part.room + 1, steps)
        if len(rows) > part.room:
            part.truncated = True
            rows = _cut(part, rows, heading, before)
            # The frontier is followed from the newest on: what is older than the last place was not looked at.
            left[end] += [near for near in frontier if near < part.more[-1].node]
        end, before = ("artifact" if end == "run" else "run"), None
        frontier = [row[1] for row in rows if _reach(part, row, end, heading)]
        steps = None if steps is None else steps - 1
    left[end] += frontier
    for its_end, ids in left.items():
        found = edges.find_open(ids, its_end)
        part.more += [Cursor(node=near, heading=heading) for near in ids if near in found]


def _cut(part: Part, rows: Sequence[Row], heading: Heading, before: str | None) -> Sequence[Row]:
    """The rows for which there is room, and a cursor at the first for which there is none."""
    near, far, _ = rows[-1]
    kept = [row for row in rows if (row[0], row[1]) != (near, far)]
    mine = [row[1] for row in kept if row[0] == near]
    part.more.append(Cursor(node=near, heading=heading, before=mine[-1] if mine else before))
    return kept


def _reach(part: Part, edge: Row, end: End, heading: Heading) -> bool:
    """Add an edge and its far end if there is room; tell whether that end is new."""
    near, far, role = edge
    new = far not in part.ends
    if new and not part.room:
        return False
    part.ends.setdefault(far, end)
    source, target = (far, near) if heading == "up" else (near, far)
    part.arrows[source, target, role] = None
    return new


class _Edges:
    """The edges of one walk: those of many steps are read before the walk comes to them."""

    def __init__(self, session: Session, heading: Heading, before: str | None) -> None:
        self._session = session
        self._heading = heading
        self._before = before  # of the first step only
        self._ahead = AHEAD.get(session.get_bind().dialect.name, 1)
        self._known: dict[str, list[Row]] = {}  # by near end: all that lead away from it

    def leaving(self, frontier: Sequence[str], end: End, limit: int, steps: int | None) -> Sequence[Row]:
        """The first edges that lead away from some runs or some artifacts, the newest first."""
        if all(near in self._known for near in frontier):
            return _sort(row for near in frontier for row in self._known[near])[:limit]
        first, *later = self._read(frontier, end, limit, self._ahead if steps is None else min(self._ahead, steps))
        nears: Iterable[str] = frontier
        self._before = None  # what is left out of the start's edges is not missed: no walk comes to its start again
        for rows in (first, *later):
            if len(rows) < limit:  # else not all of them were read
                self._known |= {near: [] for near in nears}
                for row in rows:
                    self._known[row[0]].append(row)
            nears = {far for _, far, _ in rows}
        return first

    def find_open(self, ids: Sequence[str], end: End) -> set[str]:
        """Those of some runs or artifacts from which an edge leads away."""
        found = {one for one in ids if self._known.get(one)}
        if unknown := [one for one in ids if one not in self._known]:
            near, _, direction = _columns(end, self._heading)
            own = col(RunRow.id) if end == "run" else col(ArtifactRow.id)
            leads = select(near).where(near == own, direction).exists()
            found |= set(self._session.scalars(select(own).where(own.in_(unknown), leads)))
        return found

    def _read(self, frontier: Sequence[str], end: End, limit: int, steps: int) -> list[list[Row]]:
        """The first edges of each of some steps, if each goes on from all that the one before has reached."""
        found: list[list[Row]] = [[] for _ in range(steps)]
        query = _select_steps(end, self._heading, steps, is_page=self._before is not None)
        values = {"frontier": frontier, "limit": limit, "before": self._before}
        for step, near, far, role in self._session.execute(query, values):
            found[step].append((near, far, role))
        return list(map(_sort, found))


def _sort(rows: Iterable[Row]) -> list[Row]:
    """In the order of a page, which is also that of the database: ids are capital letters and digits."""
    return sorted(rows, key=lambda row: (row[0], row[1]), reverse=True)


@lru_cache(maxsize=128)
def _select_steps(end: End, heading: Heading, steps: int, *, is_page: bool) -> CompoundSelect[Any]:
    """Steps one after the other, each cut at the limit. To build it takes longer than to run it."""
    parts: list[CTE] = []
    for step in range(steps):
        near, far, direction = _columns(end, heading)
        query = select(near.label("near"), far.label("far"), col(RunArtifactRow.role).label("role")).where(direction)
        query = query.where(near.in_(select(parts[-1].c.far) if parts else bindparam("frontier", expanding=True)))
        if is_page and not parts:
            query = query.where(far < bindparam("before"))
        query = query.order_by(near.desc(), far.desc()).limit(bindparam("limit", type_=Integer))
        parts.append(query.cte(f"step_{step}"))
        end = "artifact" if end == "run" else "run"
    return union_all(
        *(select(literal_column(str(step)), part.c.near, part.c.far, part.c.role) for step, part in enumerate(parts))
    )


def _columns(end: End, heading: Heading) -> tuple[Any, Any, ColumnElement[bool]]:
    """The near end of edges, their far end, and in which direction they point."""
    near, far = col(RunArtifactRow.run_id), col(RunArtifactRow.artifact_id)
    if end == "artifact":
        near, far = far, near
    direction = "output" if (heading == "up") == (end == "artifact") else "input"
    return near, far, col(RunArtifactRow.direction) == direction
