"""The whole database as JSON lines, and back: into any other kind of database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, insert, select
from sqlalchemy import Table as SqlTable
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import LineageError, NotEmpty
from chapkit_flows.lineage.columns import Number, UtcDateTime
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.json_text import dump_json
from chapkit_flows.lineage.migrations import REVISIONS
from chapkit_flows.lineage.tables import ConfigEntryRow, RunRow, Table

_BATCH = 1000
_HEAD = "chapkit-flows lineage"


def dump(database: Database) -> Iterator[str]:
    """Every row of one state of the database, as lines of JSON: first a head, then tables in the order to load them.

    Equal databases give equal lines, whatever their kind.
    """
    yield dump_json({"dump": _HEAD, "revision": REVISIONS[-1]})
    with database.read() as session:
        for table in Table.metadata.sorted_tables:
            query = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_BATCH)
            for row in session.execute(query):
                yield dump_json({"table": table.name, "row": dict(row._mapping)}, sort_keys=True)


def load_dump(database: Database, lines: Iterable[str]) -> int:
    """Write the rows of a dump into an empty database, all in one transaction; return how many.

    Raises:
        NotEmpty: The database has runs or versions of configs.
        LineageError: It is no dump, or one of a newer version.
    """
    tables = {table.name: table for table in Table.metadata.sorted_tables}
    incoming = iter(lines)
    _check_head(next(incoming, ""))
    count = 0
    with database.write() as session:
        _check_empty(session, database.url)
        batch: list[dict[str, Any]] = []
        current: SqlTable | None = None
        for line in incoming:
            document = json.loads(line)
            table = tables.get(document.get("table"))
            if table is None:
                raise LineageError(f"The dump has rows of an unknown table: {line[:80]}. Upgrade chapkit-flows.")
            if batch and (table is not current or len(batch) == _BATCH):
                _insert(session, current, batch)
                batch = []
            current = table
            batch.append(_from_json(table, document["row"]))
            count += 1
        if batch:
            _insert(session, current, batch)
    return count


def _insert(session: Session, table: SqlTable | None, rows: list[dict[str, Any]]) -> None:
    assert table is not None
    session.execute(insert(table), rows)


def _check_empty(session: Session, url: str) -> None:
    for column, what in ((RunRow.id, "runs"), (ConfigEntryRow.id, "versions of configs")):
        if session.scalar(select(col(column)).limit(1)) is not None:
            raise NotEmpty(
                f"The lineage database {url} has {what} already; a backup is restored into an empty one only. "
                "Set another database URL."
            )


def _check_head(line: str) -> None:
    try:
        head = json.loads(line)
        if head["dump"] == _HEAD and head["revision"] in REVISIONS:
            return
    except (ValueError, KeyError, TypeError):
        raise LineageError(f"That is no dump of a lineage database: {line[:80]!r}. Name another backup.") from None
    raise LineageError(
        f"The dump has the revision {head['revision']}, this version knows none after {REVISIONS[-1]}. "
        "Upgrade chapkit-flows."
    )


def _from_json(table: SqlTable, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the Python values that its columns take; columns that the dump does not know are null."""
    return {column.name: _value(column, row.get(column.name)) for column in table.columns}


def _value(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, UtcDateTime):
        return datetime.fromisoformat(value)
    return float(value) if isinstance(column.type, Number) else value
