"""Run Alembic's migrations from Python: no alembic.ini, no output, one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text

from chapkit_flows.errors import DatabaseLocked, DatabaseTooNew
from chapkit_flows.lineage.migrations import REVISIONS

LOCK_NAME = "chapkit_flows_migration"
LOCK_NUMBER = 0x63686170_6B697466  # PostgreSQL names advisory locks by 64 bits
LOCK_SECONDS = 300


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade to a revision; nothing happens if another process has done it meanwhile.

    Args:
        connection: In a transaction; on SQLite it holds the write lock already.
        revision: The name of a revision.

    Raises:
        DatabaseTooNew: Another process has upgraded to a revision that this installation does not know.
    """
    with _alone(connection):
        try:
            command.upgrade(make_config(connection), revision)
        except CommandError as error:
            raise DatabaseTooNew(
                f"The lineage database cannot be upgraded to {REVISIONS[-1]}: {error}. A newer chapkit_flows "
                "uses it. Upgrade this installation: pip install -U chapkit-flows"
            ) from error


def downgrade(connection: Connection, revision: str) -> None:
    """Go back to an older revision, `base` for none; what only newer revisions can hold is lost."""
    with _alone(connection):
        command.downgrade(make_config(connection), revision)


def make_config(connection: Connection) -> Config:
    """The configuration of Alembic's commands for an open connection."""
    config = Config()
    folder = str(Path(__file__).parent).replace("%", "%%")  # the parser of ini files would expand %
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    return config


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Hold a lock of the database server, so that two processes do not migrate at once."""
    dialect = connection.dialect.name
    if dialect == "postgresql":  # released at the end of the transaction
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK_NUMBER})
    if dialect not in ("mysql", "mariadb"):
        yield
        return
    # MySQL commits at each change of a table, so its lock must outlive the transaction.
    name = {"name": LOCK_NAME, "seconds": LOCK_SECONDS}
    if connection.scalar(text("SELECT GET_LOCK(:name, :seconds)"), name) != 1:
        raise DatabaseLocked("Another process has been migrating the lineage database for long. Wait for it.")
    try:
        yield
        # The new revision must be there for the next process before that has the lock.
        connection.execute(text("COMMIT"))
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": LOCK_NAME})
