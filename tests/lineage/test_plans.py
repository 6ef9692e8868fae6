"""How SQLite would run the queries: by index, never through a whole table."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from chapkit_flows.lineage import query, search
from chapkit_flows.lineage.annotations import set_tags
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.search import search_runs
from chapkit_flows.testing.facts import record_chain
from chapkit_flows.testing.plans import WORKS, find_scans, note_statements

COMMON = ("metric.crps < 20", "tag.site = 'A' and metric.crps < 20", "started > 2020-01-01 or param.horizon = 3")


def explain(database: Database, work: Callable[[], object], only: str = "") -> list[str]:
    """The steps that SQLite takes for what `work` sends, or for those statements that contain a text."""
    sent = note_statements(database, work)
    with database.read() as session:
        connection = session.connection()
        plans = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            for statement, values in sent
            if only in statement
        ]
        return [step.detail for plan in plans for step in plan]


@pytest.mark.parametrize("name", WORKS)
def test_no_full_scan(url: str, name: str) -> None:
    """No query reads a whole table or a whole index, of any size; SQLite has no statistics to decide by."""
    database = open_database(url)
    training, _ = record_chain(database)
    scans = find_scans(database, lambda: WORKS[name](database, training))
    database.close()
    assert [] == scans


@pytest.mark.parametrize("where", COMMON)
def test_common_filter_stops_at_the_page(url: str, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Of what many rows meet the newest are tried in the order of an index, so that nothing is sorted."""
    monkeypatch.setattr(search, "FEW", 0)
    database = open_database(url)
    training, _ = record_chain(database)
    set_tags(database, training.id, {"site": "A"}, by="ana")
    steps = explain(database, lambda: search_runs(database, where), only="lineage_run.parameters")
    database.close()
    assert steps
    assert [] == [step for step in steps if "B-TREE" in step or re.match(r"SCAN lineage_(metric|tag)", step)]
    by_tag = [step for step in steps if re.match(r"SEARCH lineage_tag .*key=\? AND value=\?\)", step)]
    assert bool(by_tag) == where.startswith("tag")


def test_latest_training_is_found_among_the_runs_of_its_model(url: str) -> None:
    """The runs of the model are tried newest first in the order of an index, so that nothing is sorted."""
    database = open_database(url)
    record_chain(database)
    steps = explain(database, lambda: query.latest_training(database, "rain"), only="lineage_run.parameters")
    database.close()
    assert [step for step in steps if re.match(r"SEARCH lineage_run USING INDEX ix_lineage_run_model_id", step)]
    assert [] == [step for step in steps if "B-TREE" in step]


@pytest.mark.parametrize("name", ["graph of an artifact", "graph of a run"])
def test_graph_searches_the_edges_by_index(url: str, name: str) -> None:
    """Each step of a walk finds its edges in an index that begins with where the walk stands."""
    database = open_database(url)
    training, _ = record_chain(database)
    steps = explain(database, lambda: WORKS[name](database, training))
    database.close()
    on_edges = [step for step in steps if "lineage_run_artifact" in step]
    by_key = r"SEARCH lineage_run_artifact USING COVERING INDEX \w+ \((run|artifact)_id=\?( AND direction=\?)?\)"
    assert on_edges
    assert [] == [step for step in on_edges if not re.fullmatch(by_key, step)]
