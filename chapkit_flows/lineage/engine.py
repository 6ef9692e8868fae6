"""Open the lineage database: the one place that makes engines and begins transactions."""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session

from chapkit_flows.errors import DatabaseTooNew, DatabaseUnavailable
from chapkit_flows.lineage.failures import is_contention, mask, translate
from chapkit_flows.lineage.json_text import dump_json
from chapkit_flows.lineage.migrations import REVISIONS, read_revision

T = TypeVar("T")

BUSY_SECONDS = 30.0
ATTEMPTS = 10
_BRIEF_SECONDS, _LONG_SECONDS = 0.005, 0.1
# Name without driver -> dialect with the driver that is tested here.
_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_REQUIREMENTS = {"psycopg": "'psycopg[binary]'"}  # where it is not the name of the module


class Database:
    """An open lineage database. Threads may share it; close it when done.

    Attributes:
        url: For people, without the password.
    """

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.url = url
        # A read sees one state of the database, however many statements it takes. SQLite's do anyway.
        sqlite = engine.dialect.name == "sqlite"
        self._reading = engine if sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._writing = engine.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for queries that sees one state of the database.

        Raises:
            DatabaseUnavailable: The database cannot be reached or read.
            DatabaseLocked: Another process locks it against readers.
        """
        with self._translated(), Session(self._reading) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is one transaction: committed at the end, rolled back on an error.

        Raises:
            DatabaseUnavailable: The database cannot be reached or written.
            DatabaseLocked: Another process writes for longer than the timeout.
            LineageError: The database refused a value.
        """
        with self._translated(), self._transaction() as session:
            yield session

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one transaction; run it again when another writer got in between.

        Raises:
            The errors of `write`.
        """
        with self._translated():
            for _ in range(ATTEMPTS - 1):
                try:
                    with self._transaction() as session:
                        return work(session)
                except SQLAlchemyError as error:
                    if not is_contention(error):
                        raise
            with self._transaction() as session:
                return work(session)

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with Session(self._writing) as session, session.begin():
            yield session

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise translate(error, self.url) from error


def open_database(url: str) -> Database:
    """Open a lineage database; make or upgrade its tables where needed.

    Args:
        url: SQLAlchemy URL. SQLite waits 30 seconds for other writers; `?timeout=SECONDS` changes that.

    Raises:
        DatabaseUnavailable: It cannot be reached, read or made, or its driver is not installed.
        DatabaseLocked: Another process holds it for longer than the timeout.
        DatabaseTooNew: A newer chapkit_flows wrote it.
    """
    database = Database(_make_engine(url), mask(url))
    try:
        with database.read() as session:
            revision = read_revision(session.connection())
        if revision is not None and revision not in REVISIONS:
            raise DatabaseTooNew(
                f"The lineage database {database.url} has the revision {revision}, this installation of "
                f"chapkit_flows knows none after {REVISIONS[-1]}. Upgrade it: pip install -U chapkit-flows"
            )
        if revision != REVISIONS[-1]:
            _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: Database) -> None:
    # Alembic is needed once in the life of a database, and importing it costs more than opening one.
    module = import_module("chapkit_flows.lineage.migrations.upgrade")
    with database.write() as session:
        module.upgrade(session.connection())


def _make_engine(url: str) -> Engine:
    """An engine that is not connected yet."""
    shown = mask(url)
    try:
        parsed = make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        if parsed.get_backend_name() == "sqlite":
            return _make_sqlite_engine(parsed)
        # It writes to the standard error output when another writer got in between, which is run again anyway.
        logging.getLogger("psycopg").addFilter(_is_news)
        return create_engine(parsed, json_serializer=dump_json, pool_pre_ping=True, isolation_level="READ COMMITTED")
    except ModuleNotFoundError as error:
        requirement = _REQUIREMENTS.get(error.name or "", error.name)
        raise DatabaseUnavailable(
            f"The lineage database {shown} needs the driver {error.name}. Install it: pip install {requirement}"
        ) from error
    except NoSuchModuleError as error:
        raise DatabaseUnavailable(
            f"The lineage database {shown} is of a kind that is not installed. Begin its URL with "
            "sqlite:///, postgresql:// or mysql://, or install the SQLAlchemy dialect for it."
        ) from error
    except (SQLAlchemyError, ValueError, TypeError) as error:
        raise DatabaseUnavailable(
            f"{shown!r} is not the URL of a database. Write sqlite:///path/to/lineage.db, "
            "postgresql://user:password@host/name or mysql://user:password@host/name."
        ) from error
    except OSError as error:
        raise DatabaseUnavailable(
            f"The folder of the lineage database {shown} cannot be made: {error}. Check path and rights."
        ) from error


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().endswith("pipeline aborted")


def _make_sqlite_engine(url: URL) -> Engine:
    path = url.database or ""
    in_memory = path in ("", ":memory:")
    if not in_memory and not path.startswith("file:"):
        Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"check_same_thread": False}
    if "timeout" not in url.query:
        options["timeout"] = BUSY_SECONDS
    # A database in memory lives in its one connection: threads take turns.
    pool = {"pool_size": 1, "max_overflow": 0} if in_memory else {}
    engine = create_engine(url, poolclass=QueuePool, connect_args=options, json_serializer=dump_json, **pool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # else the driver begins transactions by itself, and too late
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode == "delete":
        _switch_to_wal(connection)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Let readers and one writer work at the same time; a copy or a backup may have lost the mode."""
    (milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
    deadline = time.monotonic() + milliseconds / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & 0xFF
            # SQLite does not wait here: two processes that open a new file at once would fail.
            if code == sqlite3.SQLITE_BUSY and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            if code != sqlite3.SQLITE_READONLY:
                raise
        return


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once if another wrote in between,
    # however long the timeout. One that takes the lock at its beginning waits for its turn.
    if not connection.get_execution_options().get("writes", False):
        connection.exec_driver_sql("BEGIN")
    elif not _take_turn(cast(sqlite3.Connection, connection.connection.driver_connection)):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _take_turn(connection: sqlite3.Connection) -> bool:
    """Begin to write as soon as nobody else does; False when the timeout has passed.

    SQLite's own way of waiting asks ever more seldom, so that of many writers those who came last go first, and one
    may wait for longer than the timeout. Here those who have waited for long ask more often.
    """
    (milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
    began = time.monotonic()
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    return False
            else:
                return True
            waited = time.monotonic() - began
            if waited > milliseconds / 1000:
                return False
            pause = _BRIEF_SECONDS if waited < _LONG_SECONDS else _LONG_SECONDS / (1 + waited)
            time.sleep(random.uniform(0.5, 1.5) * pause)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
