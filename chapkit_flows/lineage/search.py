"""Find runs and artifacts by a filter; `filters.py` says how one is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from sqlalchemy import Select, SQLColumnExpression, Subquery, func, select
from sqlalchemy.orm import Session

from chapkit_flows.lineage.conditions import ARTIFACT, RUN, Subject, build, build_ids, has_one_value, join_metric
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.filters import Comparison, Condition, Either, Every, Flag, Not, flags, parse
from chapkit_flows.lineage.query import is_kept, page
from chapkit_flows.lineage.rows import load_runs, to_artifact
from chapkit_flows.lineage.staleness import find_stale, load_past
from chapkit_flows.lineage.tables import ArtifactRow, RunRow
from chapkit_flows.refs import ArtifactRef

FEW = 2_000
"""What so few rows meet is found by index and sorted; what more meet is come upon soon by trying the newest."""

TRIED = 500
"""Of so many it is found out at once whether they are stale."""


class Options(TypedDict, total=False):
    """What narrows a search further.

    Attributes:
        equals: What some fields must be besides; None for anything.
        limit: Length of a page; 50 unless told.
        before: The id of the last one on the page before.
        trash: Of artifacts, those in the trash instead.
    """

    equals: Mapping[str, str | None]
    limit: int
    before: str | None
    trash: bool


def search_runs(database: Database, where: str, **options: Unpack[Options]) -> list[RunFact]:
    """The runs that a filter is true of, newest first.

    Raises:
        InvalidFilter: `where` is not a filter.
        InvalidId: `before` is not an id.
    """
    condition = _read(where, options, RUN)
    with database.read() as session:
        return load_runs(session, _find(session, select(RunRow), (condition, RUN), options))


def search_artifacts(database: Database, where: str, **options: Unpack[Options]) -> list[ArtifactRef]:
    """The artifacts that a filter is true of, newest first, without those in the trash.

    `model` is true of what runs of the model read or wrote, `metric.NAME` of what a run with the metric wrote,
    and of what a run has measured, such as a prediction that was scored; after several such runs, of any of them.

    Raises:
        The errors of `search_runs`.
    """
    condition = _read(where, options, ARTIFACT)
    with database.read() as session:
        rows = _find(
            session,
            select(ArtifactRow).where(~is_kept() if options.get("trash") else is_kept()),
            (condition, ARTIFACT),
            options,
        )
        return [to_artifact(row) for row in rows]


def _find(session: Session, query: Select[Any], asked: tuple[Every, Subject], options: Options) -> Sequence[Any]:
    found, found_id = _select(session, query, *asked)
    limit, before = options.get("limit", 50), options.get("before")
    wanted = {flag.value for flag in flags(asked[0])}
    if not wanted:
        return session.scalars(page(found, found_id, limit, before)).all()
    kept: list[Any] = []
    while len(kept) < limit:
        rows = session.scalars(page(found, found_id, TRIED, before)).all()
        stale = find_stale(session, load_past(session, [row.id for row in rows]))
        kept += [row for row in rows if {row.id in stale} == wanted]
        if len(rows) < TRIED:
            break
        before = rows[-1].id
    return kept[:limit]


def _read(where: str, options: Options, subject: Subject) -> Every:
    condition = parse(where, subject.vocabulary)
    equals = options.get("equals", {}).items()
    more = [Comparison(field=field, operator="=", values=(value,)) for field, value in equals if value is not None]
    parts = condition.parts if isinstance(condition, Every) else (condition,)
    return Every((*parts, *more))


def _select(
    session: Session, query: Select[Any], condition: Every, subject: Subject
) -> tuple[Select[Any], SQLColumnExpression[Any]]:
    """The query for what a condition is true of, and the column of ids to order it by.

    The databases' own planners do not find the shortest way: SQLite keeps no statistics, and how often a metric
    is below a number depends on the number.
    """
    dialect = session.get_bind().dialect.name
    few = _narrow(session, condition, subject)
    tagged = next((tag for part in condition.parts if (tag := _find_tag(part, subject, dialect))), None)
    rest = condition.parts
    if few is not None and few.count <= FEW:
        # A list, not a query: PostgreSQL guesses wrong how much a condition on names and values of metrics finds.
        found = {found_id for ids in few.ids for found_id in session.scalars(ids)}
        query = query.where(subject.id.in_(found))
        rest = tuple(part for part in rest if part not in few.met)
    elif tagged is not None:
        # The index of a tag has its ids in order: the newest are tried, and nothing else is.
        part, ids = tagged
        query = query.join(ids, ids.c.subject_id == subject.id)
        subject = replace(subject, id=ids.c.subject_id)
        rest = tuple(other for other in rest if other != part)
        # Of two common parts that never meet PostgreSQL can go through both indexes side by side, in their order.
        metric = _find_metric(rest) if dialect == "postgresql" and subject.type == "run" else None
        if metric is not None:
            query = query.join(*join_metric(metric, subject, dialect))
            rest = tuple(other for other in rest if other != metric)
    return query.where(build(Every(rest), subject, dialect)), subject.id


def _find_tag(part: Condition, subject: Subject, dialect: str) -> tuple[Comparison, Subquery] | None:
    """The part and its ids, if it is that a tag has a certain value."""
    if not isinstance(part, Comparison) or (part.field, part.operator) != ("tag", "=") or part.key is None:
        return None
    (ids,) = build_ids([part], subject, dialect)
    return part, ids.subquery()


def _find_metric(parts: Sequence[Condition]) -> Comparison | None:
    """The first part that is about a metric."""
    return next((part for part in parts if isinstance(part, Comparison) and part.field == "metric"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidates:
    """Queries by index that together find everything a condition can be true of.

    Attributes:
        count: How much they find at most; counted to a little above FEW.
        met: The parts of the condition that are true of all they find.
    """

    count: int
    ids: tuple[Select[Any], ...]
    met: tuple[Condition, ...] = ()


def _narrow(session: Session, condition: Condition, subject: Subject) -> _Candidates | None:
    """The shortest way to the candidates; None where only trying each row tells."""
    match condition:
        case Comparison():
            return _count(session, [condition], subject)
        case Every(parts):
            found = [_count(session, group, subject) for group in _ranges(parts, subject)]
            nested = [_narrow(session, part, subject) for part in parts if not isinstance(part, Comparison)]
            found += [replace(way, met=()) for way in nested if way]
            return min((way for way in found if way), key=lambda way: way.count, default=None)
        case Either(parts):
            ways = [way for part in parts if (way := _narrow(session, part, subject))]
            ids = tuple(query for way in ways for query in way.ids)
            return _Candidates(count=sum(way.count for way in ways), ids=ids) if len(ways) == len(parts) else None
        case Not() | Flag():
            return None


def _count(session: Session, comparisons: list[Comparison], subject: Subject) -> _Candidates | None:
    ids = build_ids(comparisons, subject, session.get_bind().dialect.name)
    if not ids:
        return None
    counts = (select(func.count()).select_from(one.limit(FEW + 1).subquery()) for one in ids)
    count = sum(session.scalar(counted) or 0 for counted in counts)
    return _Candidates(count=count, ids=ids, met=tuple(comparisons))


def _ranges(parts: tuple[Condition, ...], subject: Subject) -> list[list[Comparison]]:
    """The comparisons, those together that make a range of one value."""
    groups: defaultdict[object, list[Comparison]] = defaultdict(list)
    for part in parts:
        if isinstance(part, Comparison):
            groups[(part.field, part.key) if has_one_value(part, subject) else part].append(part)
    return list(groups.values())
