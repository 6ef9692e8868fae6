"""Changes of the schema that may be made twice.

MySQL commits at each of them, so a process that is killed while it migrates leaves some done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import inspect


def create_table(name: str, *parts: Any, **options: Any) -> None:
    """Create a table unless it is there."""
    op.create_table(name, *parts, **options, if_not_exists=True)


def create_index(name: str, table: str, columns: Sequence[str], *, unique: bool = False) -> None:
    """Create an index unless it is there; MySQL, other than MariaDB, cannot say `IF NOT EXISTS`."""
    if not _has_index(name, table):
        op.create_index(name, table, columns, unique=unique)


def drop_index(name: str, table: str) -> None:
    """Drop an index if it is there."""
    if _has_index(name, table):
        op.drop_index(name, table)


def drop_table(name: str) -> None:
    """Drop a table if it is there."""
    op.drop_table(name, if_exists=True)


def _has_index(name: str, table: str) -> bool:
    return name in {index["name"] for index in inspect(op.get_bind()).get_indexes(table)}
