"""How a database would run the queries: by index, never through a whole table. Subclass `PlanContract`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.lineage import query, record, search
from chapkit_flows.lineage.annotations import history, load_tags, set_tags
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Cursor, RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.readings import last_reading, newer_readings, readings, uri_digest
from chapkit_flows.lineage.rows import from_artifact
from chapkit_flows.lineage.search import search_artifacts, search_runs
from chapkit_flows.lineage.staleness import stale_reasons
from chapkit_flows.lineage.tables import ArtifactRow, MetricRow, ReadingRow, RunArtifactRow, RunRow, TagRow
from chapkit_flows.refs import new_id
from chapkit_flows.testing.facts import make_artifact, make_run, make_training, record_chain

Work = Callable[[Database, RunFact], object]

RUNS = 6_000
FEW = 100  # in proportion, what `search.FEW` is to a large database
FACTS = {"columns": [f"covariate_{number}" for number in range(60)]}  # as much as a real dataset says of itself
_STREAMS = ("Limit", "Nested Loop", "Seq Scan", "Subquery Scan", "Result")
BIG = ("run", "artifact", "run_artifact", "metric", "tag", "reading")
URI = "s3://bucket/7.csv"
WORKS: dict[str, Work] = {
    "graph of an artifact": lambda database, run: lineage(database, run.output("model").id),
    "graph of a run": lambda database, run: lineage(database, run.id),
    "page of a graph": lambda database, run: lineage(
        database, Cursor(node=run.output("model").id, heading="down", before=run.id), up=False, depth=1, limit=3
    ),
    "consumers": lambda database, run: query.consumers(database, run.output("model").id, before=run.id),
    "producer": lambda database, run: query.producer(database, run.output("model").id),
    "run": lambda database, run: query.get_run(database, run.id),
    "runs": lambda database, run: query.list_runs(database, model="rain", before=run.id),
    "runs of a flow": lambda database, run: query.list_runs(database, flow="train"),
    "artifacts of a kind": lambda database, run: query.list_artifacts(database, kind="prediction"),
    "artifacts of a model": lambda database, run: query.list_artifacts(database, model="rain", kind="dataset"),
    "stale artifacts": lambda database, run: search_artifacts(database, "stale and kind = 'prediction'", before=run.id),
    "artifacts by digest": lambda database, run: query.list_artifacts(database, digest="sha256:0"),
    "last metric": lambda database, run: query.last_metric(database, "rain", "crps"),
    "latest training": lambda database, run: query.latest_training(database, "rain"),
    "dataset": lambda database, run: query.find_dataset(database, "sha256:0", "text/csv"),
    "readings": lambda database, run: readings(database, URI, before=run.id),
    "last reading": lambda database, run: last_reading(database, URI),
    "newer readings": lambda database, run: newer_readings(database, [run.inputs[0].artifact.id]),
    "what is stale": lambda database, run: stale_reasons(database, [run.id, run.output("model").id]),
    "start": lambda database, run: record.start(database, make_run(flow_run_id=new_id())),
    "finish": lambda database, run: record.finish(
        database, record.start(database, make_run()).id, make_training(workspace=new_id())
    ),
    "tags are set": lambda database, run: set_tags(database, run.id, {"site": new_id()}, by="ana"),
    "tags": lambda database, run: load_tags(database, [run.id]),
    "history": lambda database, run: history(database, run.id),
}
RUN_FILTERS = (
    "metric.crps < 20",
    "metric.crps > 10 and metric.crps < 20 and not model = 'rain'",
    "metric.crps < 20 and (tag.site = 'A' or model = 'rain')",
    "metric.bias > 0 and tag.sign = 'negative'",
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


def _search(where: str, find: Callable[..., object]) -> Work:
    return lambda database, run: find(database, where, before=new_id())


WORKS |= {f"runs where {where}": _search(where, search_runs) for where in RUN_FILTERS}
WORKS |= {f"artifacts where {where}": _search(where, search_artifacts) for where in ARTIFACT_FILTERS}


def fill(database: Database) -> RunFact:
    """Write enough runs for a server to prefer an index, let it do what it does soon after, and return one of them."""
    with database.write() as session:
        _write_runs(session)
    training, _ = record_chain(database)
    statements = {
        "postgresql": ["VACUUM ANALYZE"],
        "mysql": [f"ANALYZE TABLE lineage_{name}" for name in BIG],
    }.get(database.engine.dialect.name.replace("mariadb", "mysql"), [])
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    return training


def _write_runs(session: Session) -> None:
    chance = random.Random(0)
    rows: dict[Any, list[dict[str, Any]]] = {
        table: [] for table in (RunRow, ArtifactRow, RunArtifactRow, MetricRow, TagRow, ReadingRow)
    }
    for number in range(RUNS):
        moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=number)
        made = from_artifact(make_artifact("prediction", str(number), level=1, created_at=moment, metadata=FACTS))
        if number % 10 == 0:
            read = from_artifact(make_artifact("dataset", f"data {number}", created_at=moment, metadata=FACTS))
            rows[ArtifactRow].append(read)
        run: dict[str, Any] = {
            "id": new_id(),
            "flow": ("train", "predict")[number % 2],
            "model": f"model {number % 20}",
        }
        run |= {"status": "failed" if number % 20 == 0 else "completed", "parameters": {"horizon": number % 6}}
        rows[RunRow].append(run | {"started_at": moment, "finished_at": moment})
        rows[ArtifactRow].append(made)
        for direction, artifact, role in (("input", read, "data"), ("output", made, "prediction")):
            edge = {"run_id": run["id"], "direction": direction, "artifact_id": artifact["id"], "role": role}
            rows[RunArtifactRow].append(edge)
        bias = chance.uniform(-1, 1)
        metrics = {"crps": chance.uniform(0, 1000), "bias": bias, "rmse": chance.random()}
        about = {"run_id": run["id"], "subject_id": run["id"]}
        rows[MetricRow] += [about | {"name": name, "value": value} for name, value in metrics.items()]
        marks = {"site": "ABCDEFGHIJKLMNOPQRST"[number % 20], "sign": "negative" if bias < 0 else "positive"}
        tagged = {"subject_id": run["id"], "subject_type": "run"}
        rows[TagRow] += [tagged | {"key": key, "value": value} for key, value in marks.items()]
        uri = f"s3://bucket/{number % 100}.csv"
        reading = {"id": new_id(), "uri": uri, "uri_digest": uri_digest(uri), "run_id": run["id"], "role": "data"}
        rows[ReadingRow].append(reading | {"artifact_id": read["id"], "read_at": moment})
    rows[ArtifactRow].sort(key=lambda row: str(row["kind"]))  # rows with the same columns are one statement
    for table, values in rows.items():
        session.execute(insert(table), values)


def note_statements(database: Database, work: Callable[[], object]) -> list[tuple[str, Any]]:
    """What `work` sends, with its values."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        sent.append((statement, values[0] if many else values))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return [(statement, values) for statement, values in sent if statement.startswith(("SELECT", "DELETE", "UPDATE"))]


def find_scans(database: Database, work: Callable[[], object]) -> list[str]:
    """The steps of what `work` sends in which a big table is read as a whole."""
    statements = note_statements(database, work)
    assert statements
    find = _FINDERS.get(database.engine.dialect.name)
    if find is None:
        pytest.skip(f"how {database.engine.dialect.name} explains a plan is not known here")
    with database.read() as session:
        connection = session.connection()
        return [
            f"{step}\n{statement}" for statement, values in statements for step in find(connection, statement, values)
        ]


def _find_in_sqlite(connection: Any, statement: str, values: Any) -> Iterator[str]:
    for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values):
        if step.detail.startswith(("SCAN lineage_", "SCAN TABLE lineage_")):
            yield step.detail


def _find_in_postgresql(connection: Any, statement: str, values: Any) -> Iterator[str]:
    found = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar()
    (entry,) = json.loads(found) if isinstance(found, str) else found
    nodes: list[tuple[Any, float]] = [(entry["Plan"], 0)]
    while nodes:
        node, limit = nodes.pop()
        kind = node["Node Type"]
        # A limit ends a scan early if far more rows fit than it lets through, and nothing sorts or hashes them first.
        limit = node["Plan Rows"] if kind == "Limit" else limit if kind in _STREAMS else 0
        nodes += [(child, limit if number == 0 else 0) for number, child in enumerate(node.get("Plans", []))]
        if kind == "Seq Scan" and _is_big(node.get("Relation Name")) and not 0 < 2 * limit < node["Plan Rows"]:
            yield f"Seq Scan of {node['Relation Name']}"


def _find_in_mysql(connection: Any, statement: str, values: Any) -> Iterator[str]:
    for step in connection.exec_driver_sql(f"EXPLAIN {statement}", values).mappings():
        # A whole index is read where `rows` is not that of a page, and no limit ends it: it says nothing of those.
        by_index = step["type"] == "index" and int(step["rows"] or 0) > RUNS // 4 and "LIMIT" not in statement
        whole = step["type"] == "ALL" or by_index
        if whole and _is_big(step["table"]):
            yield f"{step['type']} of {step['table']}: {step['key']}, {step['rows']} rows, {step['Extra']}"


def _is_big(table: str | None) -> bool:
    return (table or "").removeprefix("lineage_").removesuffix("_1") in BIG


_FINDERS: Mapping[str, Callable[[Any, str, Any], Iterator[str]]] = {
    "sqlite": _find_in_sqlite,
    "postgresql": _find_in_postgresql,
    "mysql": _find_in_mysql,
    "mariadb": _find_in_mysql,
}


class PlanContract:
    """What a `filled` database, of which `fill` has returned a run, would do for each query."""

    @pytest.mark.parametrize("name", WORKS)
    def test_no_full_scan(self, filled: tuple[Database, RunFact], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """No query reads a big table as a whole."""
        monkeypatch.setattr(search, "FEW", FEW)
        database, run = filled
        scans = find_scans(database, lambda: WORKS[name](database, run))
        assert scans == [], scans

    def test_full_scan_is_found(self, filled: tuple[Database, RunFact]) -> None:
        """A query that no index serves is told from the others."""
        database, _ = filled

        def work() -> None:
            with database.read() as session:
                session.scalars(select(col(RunRow.id)).where(col(RunRow.entrypoint) == "model.py:rain")).all()

        assert len(find_scans(database, work)) == 1
