"""How SQLite would run the queries: by index, never through a whole table."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from chapkit_flows.lineage import query, record, search
from chapkit_flows.lineage.annotations import history, load_tags, set_tags
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.search import search_artifacts, search_runs
from chapkit_flows.testing.facts import make_run, make_training, record_chain

Work = Callable[[Database, RunFact], object]

WORKS: dict[str, Work] = {
    "graph of an artifact": lambda database, run: lineage(database, run.output("model").id),
    "graph of a run": lambda database, run: lineage(database, run.id),
    "consumers": lambda database, run: query.consumers(database, run.output("model").id, before=run.id),
    "producer": lambda database, run: query.producer(database, run.output("model").id),
    "run": lambda database, run: query.get_run(database, run.id),
    "runs": lambda database, run: query.list_runs(database, model="rain", before=run.id),
    "runs of a flow": lambda database, run: query.list_runs(database, flow="train"),
    "artifacts of a kind": lambda database, run: query.list_artifacts(database, kind="prediction"),
    "artifacts of a model": lambda database, run: query.list_artifacts(database, model="rain", kind="dataset"),
    "artifacts by digest": lambda database, run: query.list_artifacts(database, digest="sha256:0"),
    "latest training": lambda database, run: query.latest_training(database, "rain"),
    "dataset": lambda database, run: query.find_dataset(database, "sha256:0", "text/csv"),
    "start": lambda database, run: record.start(database, make_run(flow_run_id="f2")),
    "finish": lambda database, run: record.finish(
        database, record.start(database, make_run()).id, make_training(workspace="other")
    ),
}

RUN_FILTERS = (
    "metric.crps < 20",
    "metric.crps > 10 and metric.crps < 20 and not model = 'rain'",
    "metric.crps < 20 and (tag.site = 'A' or model = 'rain')",
    "tag.site = 'A'",
    "tag.site in ('A', 'B') and param.horizon = 3",
    "tag = 'site'",
    "model = 'rain' and config ~ 'week'",
    "status = 'running'",
    "started >= 2026-01-01 and started < 2026-02-01",
    "finished > 2026-01-01 or flow in ('train', 'predict')",
    "config_digest = 'sha256:0'",
    "id = '01JD3Q0Z8V6Y3N5W2T7R9K4M1B'",
)
ARTIFACT_FILTERS = (
    "metric.crps < 20",
    "tag.site = 'A' and size > 5",
    "model = 'rain' and metadata.rows > 5",
    "status = 'failed' or kind = 'prediction'",
    "created = 2026-01-31",
    "level = 1 and digest = 'sha256:0'",
)
WORKS |= {
    f"runs where {where}": lambda database, run, where=where: search_runs(database, where) for where in RUN_FILTERS
}
WORKS |= {
    f"artifacts where {where}": lambda database, run, where=where: search_artifacts(database, where)
    for where in ARTIFACT_FILTERS
}
WORKS |= {
    "tags are set": lambda database, run: set_tags(database, run.id, {"site": "B"}, by="ana"),
    "tags": lambda database, run: load_tags(database, [run.id]),
    "history": lambda database, run: history(database, run.id),
}
COMMON = ("metric.crps < 20", "tag.site = 'A' and metric.crps < 20", "started > 2020-01-01 or param.horizon = 3")


def explain(database: Database, work: Callable[[], object], only: str = "") -> list[str]:
    """The steps that SQLite takes for what `work` sends, or for those statements that contain a text."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        sent.append((statement, values[0] if many else values))

    event.listen(database.engine, "before_cursor_execute", note)
    work()
    event.remove(database.engine, "before_cursor_execute", note)
    with database.read() as session:
        connection = session.connection()
        plans = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            for statement, values in sent
            if statement.startswith(("SELECT", "DELETE", "UPDATE")) and only in statement
        ]
        return [step.detail for plan in plans for step in plan]


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS.keys())
def test_no_full_scan(url: str, work: Work) -> None:
    """No query reads a whole table or a whole index."""
    database = open_database(url)
    training, _ = record_chain(database)
    steps = explain(database, lambda: work(database, training))
    database.close()
    assert steps
    assert [] == [step for step in steps if re.match(r"SCAN (TABLE )?lineage_", step)]


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
    by_key = r"SEARCH lineage_run_artifact USING COVERING INDEX \w+ \((run|artifact)_id=\? AND direction=\?\)"
    assert on_edges
    assert [] == [step for step in on_edges if not re.fullmatch(by_key, step)]
