"""How the servers that are there would run the queries; SQLite: tests/lineage/test_plans.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mariadb_server import create_mariadb_database
from postgresql import create_postgresql_database

from chapkit_flows.lineage import search
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.refs import new_id
from chapkit_flows.testing.plans import FEW, PlanContract, fill, note_statements


def filled_database(url: str) -> Iterator[tuple[Database, RunFact]]:
    database = open_database(url)
    yield database, fill(database)
    database.close()


class TestPostgreSQL(PlanContract):
    @pytest.fixture(scope="class")
    @classmethod
    def filled(cls, postgresql: str) -> Iterator[tuple[Database, RunFact]]:
        yield from filled_database(create_postgresql_database(postgresql, f"test_{new_id().lower()}"))

    def test_two_common_parts_are_gone_through_side_by_side(
        self, filled: tuple[Database, RunFact], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where a metric and a tag are common and never meet, no tagged run is tried by a query of its own."""
        monkeypatch.setattr(search, "FEW", FEW)
        database, _ = filled
        where = "metric.bias > 0 and tag.sign = 'negative'"
        sent = note_statements(database, lambda: search.search_runs(database, where))
        (query,) = [one for one in sent if "lineage_run.parameters" in one[0]]
        with database.read() as session:
            plan = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {query[0]}", query[1]).scalar()
        assert "SubPlan" not in str(plan)


class TestMariaDB(PlanContract):
    @pytest.fixture(scope="class")
    @classmethod
    def filled(cls, mariadb: str) -> Iterator[tuple[Database, RunFact]]:
        yield from filled_database(create_mariadb_database(mariadb, f"test_{new_id().lower()}"))
