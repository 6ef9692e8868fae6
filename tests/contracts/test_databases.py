"""The contract of the lineage database, on every database that is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mariadb_server import create_mariadb_database
from postgresql import create_postgresql_database

from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.refs import new_id
from chapkit_flows.testing.bulk import BulkContract
from chapkit_flows.testing.databases import LineageContract
from chapkit_flows.testing.deletions import DeletionContract, DumpContract
from chapkit_flows.testing.experiments import ExperimentContract
from chapkit_flows.testing.registry import RegistryContract


class TestSQLite(LineageContract, DeletionContract, DumpContract, BulkContract, RegistryContract, ExperimentContract):
    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Database]:
        database = open_database(f"sqlite:///{tmp_path}/lineage.db")
        yield database
        database.close()


class TestMemory(LineageContract, DeletionContract, DumpContract, BulkContract, RegistryContract, ExperimentContract):
    @pytest.fixture
    def database(self) -> Iterator[Database]:
        database = open_database("sqlite://")
        yield database
        database.close()


class TestPostgreSQL(
    LineageContract, DeletionContract, DumpContract, BulkContract, RegistryContract, ExperimentContract
):
    @pytest.fixture
    def database(self, postgresql: str) -> Iterator[Database]:
        database = open_database(create_postgresql_database(postgresql, f"test_{new_id().lower()}"))
        yield database
        database.close()


class TestMariaDB(LineageContract, DeletionContract, DumpContract, BulkContract, RegistryContract, ExperimentContract):
    @pytest.fixture
    def database(self, mariadb: str) -> Iterator[Database]:
        database = open_database(create_mariadb_database(mariadb, f"test_{new_id().lower()}"))
        yield database
        database.close()
