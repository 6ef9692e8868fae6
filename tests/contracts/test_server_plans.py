"""How the servers that are there would run the queries; SQLite: tests/lineage/test_plans.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mariadb_server import create_mariadb_database
from postgresql import create_postgresql_database

from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.refs import new_id
from chapkit_flows.testing.plans import PlanContract, fill


def filled_database(url: str) -> Iterator[tuple[Database, RunFact]]:
    database = open_database(url)
    yield database, fill(database)
    database.close()


class TestPostgreSQL(PlanContract):
    @pytest.fixture(scope="class")
    @classmethod
    def filled(cls, postgresql: str) -> Iterator[tuple[Database, RunFact]]:
        yield from filled_database(create_postgresql_database(postgresql, f"test_{new_id().lower()}"))


class TestMariaDB(PlanContract):
    @pytest.fixture(scope="class")
    @classmethod
    def filled(cls, mariadb: str) -> Iterator[tuple[Database, RunFact]]:
        yield from filled_database(create_mariadb_database(mariadb, f"test_{new_id().lower()}"))
