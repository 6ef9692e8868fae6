"""Filters as conditions of SQL, meaning the same in every database; each value is a parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq, ge, gt, le, lt, ne
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Integer,
    Select,
    SQLColumnExpression,
    String,
    UnaryExpression,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.operators import custom_op
from sqlmodel import col

from chapkit_flows.lineage.columns import Number, UtcDateTime, storable
from chapkit_flows.lineage.filters import Comparison, Condition, Either, Every, Flag, Not, Span, Value, Vocabulary
from chapkit_flows.lineage.tables import ArtifactRow, MetricRow, RunArtifactRow, RunRow, Table, TagRow

Expression: TypeAlias = SQLColumnExpression[Any]

RUNS = Vocabulary(
    fields={
        "id": "text",
        "flow": "text",
        "model": "text",
        "status": "text",
        "config": "text",
        "config_digest": "text",
        "started": "time",
        "finished": "time",
        "tag": "text",
        "stale": "flag",
    },
    groups={"metric": "number", "tag": "text", "param": "mixed"},
)
ARTIFACTS = Vocabulary(
    fields={
        "id": "text",
        "kind": "text",
        "level": "number",
        "status": "text",
        "digest": "text",
        "size": "number",
        "created": "time",
        "model": "text",
        "tag": "text",
        "stale": "flag",
    },
    groups={"metric": "number", "tag": "text", "metadata": "mixed"},
)
_OPERATORS = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_HEX = re.compile(r"[0-9a-f]{64}")
# What SQLite, PostgreSQL and MySQL call the types of JSON.
_NUMBERS = ("integer", "real", "number", "INTEGER", "DOUBLE", "DECIMAL", "UNSIGNED INTEGER")
_TEXTS = ("text", "string", "STRING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The table that is searched.

    Attributes:
        columns: By field. Each has an index that begins with it, apart from `unindexed` ones.
        documents: JSON columns by group.
    """

    type: str
    id: Expression
    vocabulary: Vocabulary
    columns: Mapping[str, Expression]
    documents: Mapping[str, Expression]
    unindexed: frozenset[str] = frozenset()


def _columns(table: type[Table], *names: str, **others: str) -> dict[str, Expression]:
    """Columns by the name of their field: their own, or another."""
    named = {name: name for name in names} | others
    return {field: col(getattr(table, name)) for field, name in named.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Related:
    """Rows of other tables that say something of a run or an artifact.

    Attributes:
        columns: Those that hold its id.
        rows: To look for an id in.
        ids: To find all ids by, if that is another query; it may find ids of other things too.
    """

    columns: tuple[Expression, ...]
    rows: Select[Any]
    ids: Select[Any] | None = None


RUN = Subject(
    type="run",
    id=col(RunRow.id),
    vocabulary=RUNS,
    columns=_columns(
        RunRow,
        *("id", "flow", "model", "status", "config_digest"),
        config="config_name",
        started="started_at",
        finished="finished_at",
    ),
    documents={"param": col(RunRow.parameters)},
    unindexed=frozenset({"config"}),
)
ARTIFACT = Subject(
    type="artifact",
    id=col(ArtifactRow.id),
    vocabulary=ARTIFACTS,
    columns=_columns(ArtifactRow, *("id", "kind", "level", "status", "digest", "size"), created="created_at"),
    documents={"metadata": col(ArtifactRow.details)},
    unindexed=frozenset({"size"}),
)


def build(condition: Condition, subject: Subject, dialect: str) -> ColumnElement[bool]:
    """The condition on a row of the subject's table; true or false, never NULL."""
    match condition:
        case Comparison():
            return _build_comparison(condition, subject, dialect)
        case Every(parts):
            return and_(true(), *(build(part, subject, dialect) for part in parts))
        case Either(parts):
            return or_(*(build(part, subject, dialect) for part in parts))
        case Not(part):
            return not_(build(part, subject, dialect))
        case Flag():
            return true()  # nothing that is recorded says it: each is tried


def build_ids(comparisons: Sequence[Comparison], subject: Subject, dialect: str) -> tuple[Select[Any], ...]:
    """Queries that together find the ids of which some comparisons of one field are true; none if no index does."""
    name = comparisons[0].field
    if name in subject.documents:
        return ()
    if not _is_column(comparisons[0], subject):
        return tuple(one.rows if one.ids is None else one.ids for one in _related_rows(comparisons, subject, dialect))
    if name in subject.unindexed or any(comparison.operator in ("!=", "~") for comparison in comparisons):
        return ()
    holds = [_build_comparison(comparison, subject, dialect) for comparison in comparisons]
    return (select(subject.id).where(*holds).correlate(None),)


def join_metric(comparison: Comparison, subject: Subject, dialect: str) -> tuple[Any, ColumnElement[bool]]:
    """The metrics of which a comparison is true, and how to join them to runs, which have one of a name at most."""
    metric = aliased(MetricRow)
    holds = _compare(col(metric.value), comparison, dialect)
    # As an equation PostgreSQL takes the second one for rare.
    of_run = and_(col(metric.run_id) == subject.id, col(metric.subject_id).between(subject.id, subject.id))
    return metric, and_(of_run, col(metric.name) == comparison.key, holds)


def has_one_value(comparison: Comparison, subject: Subject) -> bool:
    """Whether a run or an artifact has at most one value of the field, so that two comparisons make a range."""
    return comparison.key is not None or _is_column(comparison, subject)


def _is_column(comparison: Comparison, subject: Subject) -> bool:
    return comparison.key is None and comparison.field in subject.columns


def _build_comparison(comparison: Comparison, subject: Subject, dialect: str) -> ColumnElement[bool]:
    if comparison.field in subject.documents:
        return _compare_document(subject.documents[comparison.field], comparison, dialect)
    if not _is_column(comparison, subject):
        return or_(*(_exists(related, subject, dialect) for related in _related_rows([comparison], subject, dialect)))
    column = subject.columns[comparison.field]
    values = tuple(_as_recorded(comparison.field, value) for value in comparison.values)
    return and_(column.is_not(None), _compare(column, replace(comparison, values=values), dialect))


def _exists(related: _Related, subject: Subject, dialect: str) -> ColumnElement[bool]:
    rows = related.rows.where(*(column == subject.id for column in related.columns))
    # The offset keeps the servers from making a join of it, which reads all before it gives the first page.
    return (rows if dialect == "sqlite" else rows.offset(0)).exists()


def _as_recorded(field: str, value: Value) -> Value:
    """Ids in either case, and digests as sha256sum prints them, are what the database calls them."""
    if field == "id":
        return str(value).upper()
    return f"sha256:{value}" if field == "digest" and _HEX.fullmatch(str(value)) else value


def _related_rows(comparisons: Sequence[Comparison], subject: Subject, dialect: str) -> tuple[_Related, ...]:
    """The rows of other tables that say it of a run or an artifact."""
    name, key = comparisons[0].field, comparisons[0].key
    value = {"tag": TagRow.value if key else TagRow.key, "model": RunRow.model, "metric": MetricRow.value}[name]
    holds = [_compare(col(value), comparison, dialect) for comparison in comparisons]
    made, edge_id = col(RunArtifactRow.run_id), col(RunArtifactRow.artifact_id)
    if name == "tag":
        of_type = [col(TagRow.subject_type) == subject.type, *([col(TagRow.key) == key] if key else [])]
        rows = select(col(TagRow.subject_id)).where(*of_type, *holds)
        return (_Related(columns=(col(TagRow.subject_id),), rows=rows),)
    if name == "model":
        rows = select(edge_id).join(RunRow, col(RunRow.id) == made).where(*holds)
        return (_Related(columns=(edge_id,), rows=rows),)
    measured = (col(MetricRow.name) == key, *holds)
    return _metrics_of_runs(measured, dialect) if subject.type == "run" else _metrics_of_artifacts(measured)


def _metrics_of_runs(measured: Sequence[ColumnElement[bool]], dialect: str) -> tuple[_Related, ...]:
    # A metric of the run, not of one of its artifacts. To say it as `run_id = subject_id` misleads PostgreSQL,
    # which then expects one row in two hundred.
    # SQLite would go by the primary key, and from there to the row for the value: with the sign, which means
    # nothing, only the index that has the value beside the run is left.
    of_run = col(MetricRow.subject_id)
    own = UnaryExpression(type_coerce(of_run, String), operator=custom_op("+")) if dialect == "sqlite" else of_run
    return (_Related(columns=(own, col(MetricRow.run_id)), rows=select(of_run).where(*measured)),)


def _metrics_of_artifacts(measured: Sequence[ColumnElement[bool]]) -> tuple[_Related, ...]:
    """Of the run that wrote the artifact; and about it by a run that read it, as one that scores a prediction does."""
    made, edge_id, about = col(RunArtifactRow.run_id), col(RunArtifactRow.artifact_id), col(MetricRow.subject_id)
    found = [
        select(edge_id)
        .join(MetricRow, and_(about == subject, col(MetricRow.run_id) == made))
        .where(col(RunArtifactRow.direction) == direction, *measured)
        for direction, subject in (("output", made), ("input", edge_id))
    ]
    # By the metrics alone: for the way by the edges PostgreSQL reads all of them.
    ids = select(about).where(about != col(MetricRow.run_id), *measured)
    return _Related(columns=(edge_id,), rows=found[0]), _Related(columns=(edge_id,), rows=found[1], ids=ids)


def _compare_document(column: Expression, comparison: Comparison, dialect: str) -> ColumnElement[bool]:
    """A number is compared with numbers, a text with texts; what is neither is not equal to anything."""
    type_, text = _read_document(column, comparison.key or "", dialect)
    numbers = tuple(value for value in comparison.values if isinstance(value, float))
    texts = tuple(value for value in comparison.values if isinstance(value, str))
    # The cast stands in the case: PostgreSQL refuses to make a number of a text.
    kinds = ((_NUMBERS, cast(text, Double), numbers), (_TEXTS, text, texts))
    parts = [
        _compare(case((type_.in_(types), found)), replace(comparison, values=values), dialect)
        for types, found, values in kinds
        if values
    ]
    return func.coalesce(or_(*parts), false())


def _read_document(column: Expression, key: str, dialect: str) -> tuple[Expression, Expression]:
    """The database's name for the type of a value in a JSON column, and the value as text."""
    if dialect == "postgresql":
        return func.json_typeof(column[key]), column[key].as_string()
    path = literal(f'$."{key}"', String)
    found = func.json_extract(column, path)
    if dialect == "sqlite":
        return func.json_type(column, path), cast(found, String)
    return func.json_type(found), func.json_unquote(found).collate("utf8mb4_bin")


def _compare(column: Expression, comparison: Comparison, dialect: str) -> ColumnElement[bool]:
    operator, values = comparison.operator, comparison.values
    if operator == "in":
        spans = [_compare_span(column, "=", value) for value in values if isinstance(value, Span)]
        return or_(*spans) if spans else column.in_([_parameter(value, column) for value in values])
    (value,) = values
    if isinstance(value, Span):
        return _compare_span(column, operator, value)
    if operator == "~":
        find = func.strpos if dialect == "postgresql" else func.instr  # LIKE minds the case in some databases only
        found: ColumnElement[bool] = find(column, _parameter(value, column)) > 0
        return found
    if isinstance(value, str) and operator not in ("=", "!=") and dialect == "postgresql":
        column = column.collate("C")  # else the order is that of a language
    compared: ColumnElement[bool] = _OPERATORS[operator](column, _parameter(value, column))
    return compared


def _compare_span(column: Expression, operator: str, span: Span) -> ColumnElement[bool]:
    start, end = literal(span.start, UtcDateTime), literal(span.end, UtcDateTime)
    if operator in ("=", "!="):
        within = and_(column >= start, column < end)
        return within if operator == "=" else not_(within)
    return {"<": column < start, "<=": column < end, ">": column >= end, ">=": column >= start}[operator]


def _parameter(value: Value, column: Expression) -> Expression:
    if isinstance(value, str):
        return literal(storable(value), String)
    # PostgreSQL has no use for the index of a column of integers when it is compared with a double.
    if (
        isinstance(getattr(column, "type", None), Integer)
        and isinstance(value, float)
        and value.is_integer()
        and abs(value) < 2**63
    ):
        return literal(int(value), BigInteger)
    return literal(value, Number)
