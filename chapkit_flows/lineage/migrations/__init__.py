"""The revisions of the database's schema. Importing this does not import Alembic."""

from __future__ import annotations

from sqlalchemy import Connection, column, inspect, select, table

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""From the first to the current one; a test compares them with the scripts."""

VERSION_TABLE = "lineage_alembic_version"
"""Not Alembic's default: Prefect, with migrations of its own, may use the same database."""


def read_revision(connection: Connection) -> str | None:
    """The revision of the database; None before the first migration."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(column("version_num")).select_from(table(VERSION_TABLE)))
