"""Many processes that record runs in one SQLite file at the same moment: `python bench/writers.py [--runs 10000]`.

Each run is begun and finished, with two artifacts and two metrics. At the end the rows are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import list_runs, scan_artifacts
from chapkit_flows.refs import new_id
from chapkit_flows.testing.facts import make_training, record_run

PROCESSES = 32
DATASETS = 20


def write(url: str, runs: int) -> float:
    """Record some runs; return how long the slowest took."""
    database, slowest = open_database(url), 0.0
    for number in range(runs):
        began = time.monotonic()
        record_run(database, make_training(data=f"table {number % DATASETS}", workspace=new_id()))
        slowest = max(slowest, time.monotonic() - began)
    database.close()
    return slowest


def fork_writer(url: str, runs: int, report: Path) -> int:
    """The id of a process that records some runs, and leaves a report."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        report.write_text(str(write(url, runs)))
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def all_runs(database: Database) -> Iterator[RunFact]:
    """Page by page, the newest first."""
    before = None
    while page := list_runs(database, limit=1000, before=before):
        yield from page
        before = page[-1].id


def count(database: Database) -> dict[str, int]:
    """The rows, and how many runs lack something."""
    runs = list(all_runs(database))
    whole = [run for run in runs if run.status == "completed" and run.inputs and run.outputs and len(run.metrics) == 2]
    return {"runs": len(runs), "half": len(runs) - len(whole), "artifacts": sum(1 for _ in scan_artifacts(database))}


def measure(folder: Path, runs: int) -> dict[str, float]:
    """Let all processes write, and say what they left."""
    url = f"sqlite:///{folder / 'lineage.db'}"
    open_database(url).close()
    began = time.monotonic()
    shares = [runs // PROCESSES + (number < runs % PROCESSES) for number in range(PROCESSES)]
    children = [fork_writer(url, share, folder / str(number)) for number, share in enumerate(shares)]
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
    seconds = time.monotonic() - began
    slowest = max(float((folder / str(number)).read_text()) for number in range(PROCESSES)) if not failed else 0.0
    database = open_database(url)
    counted = count(database)
    database.close()
    return {"seconds": seconds, "slowest": slowest, "failed": failed, **counted}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=10_000)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.runs)
    if given.json:
        print(json.dumps(found))
        return
    print(
        f"{PROCESSES} processes on one SQLite file: {found['runs']} runs of {given.runs} in {found['seconds']:.0f} s, "
        f"{found['half']} of them half; {found['failed']} processes failed; slowest run {found['slowest']:.1f} s"
    )


if __name__ == "__main__":
    main()
