"""What recording and reading facts costs, side by side: `python bench/lineage.py [--url URL] [--runs 200]`.

Medians and 95th percentiles in milliseconds. A plain SQLite file that is written and synchronised twice,
as each recorded run does, stands beside it: no database that survives a power cut can be faster on this disk.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import Edge, Outcome, RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.refs import ArtifactRef, CodeVersion, new_id
from chapkit_flows.testing.facts import make_artifact, make_code, make_config, make_run, make_training

PACKAGES = {f"package-{number}": f"1.{number}.0" for number in range(150)}
METRICS = {f"metric_{number}": number / 7 for number in range(20)}


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


def milliseconds(work: Callable[[], object], times: int) -> list[float]:
    """How long each of some repetitions took."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


def show(name: str, taken: Sequence[float], target: float | None = None) -> None:
    """Print a row of the table."""
    median, high = statistics.median(taken), statistics.quantiles(taken, n=20)[-1]
    goal = "" if target is None else f"  target <= {target:g}: {'reached' if median <= target else 'MISSED'}"
    print(f"{name:<52}{median:>9.2f}{high:>9.2f}{goal}")


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
    print(f"{'':<52}{'median':>9}{'p95':>9}  ms")
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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="an empty database; default: an SQLite file in a temporary folder")
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.url or f"sqlite:///{folder}/lineage.db", options.runs, Path(folder))


if __name__ == "__main__":
    main()
