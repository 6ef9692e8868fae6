"""Several processes on one database, and processes that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from every_database import RunTogether, on_every_database

from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.annotations import history, load_tags
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.refs import digest_of
from chapkit_flows.testing.facts import make_training

WRITERS = Path(__file__).parents[2] / "bench" / "writers.py"
RECORD_25 = """
from chapkit_flows.refs import new_id
database = open_database(url)
for number in range(25):
    record_run(database, make_training(workspace=new_id()))
database.close()
"""
# Every process brings in the same data, config and code, ends the same run, and tags the same artifact.
RACE = """
from chapkit_flows.refs import new_id
import random
from chapkit_flows.lineage.annotations import set_tags
database = open_database(url)
subject = record_run(database, make_training("shared"), flow_run_id="shared").inputs[0].artifact.id
me = new_id()
for number in range(ROUNDS):
    outcome = replace(
        make_training(f"table {number}", f"model {number}"),
        config=make_config(n_lags=number),
        code=make_code(str(number)),
        metrics={"crps": number, "mine": 1.0},
    )
    run = record.start(database, make_run(flow_run_id=f"same {number}"))
    record.finish(database, run.id, outcome)
    mixed = replace(
        make_training(f"mixed {number}", new_id()),
        inputs=tuple(
            Edge(role=f"r{n}", artifact=make_artifact("dataset", f"mixed {number} {n}"))
            for n in random.sample(range(5), 5)
        ),
    )
    record_run(database, mixed)
    set_tags(database, subject, {f"of-{me}": str(number), "last": f"{me} {number}"}, by=me)
database.close()
"""
ROUNDS, RACERS = 15, 4
OPEN_AND_RECORD = """
database = open_database(url)
record_run(database, make_training())
database.close()
"""
KILLED = """
import os, signal
from sqlalchemy import event
database = open_database(url)
run = record.start(database, make_run(flow_run_id="f1"))

def kill(connection, cursor=None, statement="", *rest):
    if statement.startswith({statement!r}):
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(database.engine, {moment!r}, kill)
record.finish(database, run.id, make_training())
"""
KILLED_MIGRATING = """
import os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine

def kill(connection, cursor, statement, *rest):
    if "ix_lineage_artifact_kind_id" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", kill)
open_database(url)
"""


@on_every_database
def test_eight_processes_record_at_once(url: str, run_together: RunTogether) -> None:
    """Of 200 runs that eight processes record at once none is lost and none finds the database locked."""
    database = open_database(url)
    ends = run_together(RECORD_25, 8)
    assert [(0, "")] * 8 == [(end.returncode, end.stderr) for end in ends]
    runs = query.list_runs(database, status="completed", limit=1000)
    artifacts = query.list_artifacts(database, limit=1000)
    database.close()
    assert (200, 201) == (len(runs), len(artifacts))


def test_many_writers_take_turns() -> None:
    """Of the runs that 32 processes record at once in one file none is lost, and nobody waits for too long.

    One that is passed over for so long ends with "database is locked"; `make bench` does the same with 10 000 runs.
    """
    done = subprocess.run(
        [sys.executable, WRITERS, "--json", "--runs", "640"], capture_output=True, text=True, timeout=400
    )
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert {"runs": 640, "half": 0, "artifacts": 640 + 20, "failed": 0} == {
        name: found[name] for name in ("runs", "half", "artifacts", "failed")
    }, done.stderr


@on_every_database
def test_writers_of_the_same_facts_race(url: str, run_together: RunTogether) -> None:
    """Of data, config, code and run that four processes record at once there is one each, and no tag is lost."""
    database = open_database(url)
    script = f"ROUNDS = {ROUNDS}\nfrom dataclasses import replace\nfrom chapkit_flows.lineage.facts import Edge\n{RACE}"
    ends = run_together(script, RACERS)
    assert [(0, "")] * RACERS == [(end.returncode, end.stderr) for end in ends]
    runs = query.list_runs(database, limit=1000)
    assert {"completed"} == {run.status for run in runs}
    assert 1 + ROUNDS * (1 + RACERS) == len(runs)
    same = [run for run in runs if str(run.flow_run_id).startswith("same")]
    assert {(1, 1, 2)} == {(len(run.inputs), len(run.outputs), len(run.metrics)) for run in same}
    datasets = query.list_artifacts(database, kind="dataset", limit=1000)
    assert 1 + ROUNDS * (1 + 5) == len({one.digest for one in datasets}) == len(datasets)
    configs = {run.config.digest for run in runs if run.config is not None}
    subject = next(one.id for one in datasets if one.digest == digest_of(b"shared"))
    tags = load_tags(database, [subject])[subject]
    said = [one for one in history(database, subject) if one.key == "last"]
    database.close()
    assert ROUNDS == len(configs)
    assert [str(ROUNDS - 1)] * RACERS == [value for key, value in tags.items() if key.startswith("of-")]
    assert ROUNDS * RACERS == len(said)


@on_every_database
def test_processes_make_the_tables_at_once(url: str, run_together: RunTogether) -> None:
    """Processes that open a new database at once migrate it once, and all can use it."""
    ends = run_together(OPEN_AND_RECORD, 6)
    assert [(0, "")] * 6 == [(end.returncode, end.stderr) for end in ends]
    database = open_database(url)
    runs = query.list_runs(database)
    database.close()
    assert [6] == [len(runs)]


@on_every_database
@pytest.mark.parametrize(
    ("moment", "statement"),
    [
        ("commit", ""),
        ("before_cursor_execute", "INSERT INTO lineage_artifact"),
        ("before_cursor_execute", "INSERT INTO lineage_run_artifact"),
        ("before_cursor_execute", "INSERT INTO lineage_metric"),
    ],
)
def test_killed_in_the_middle(url: str, run_together: RunTogether, moment: str, statement: str) -> None:
    """A process killed while it finishes a run leaves the run running, nothing half, and a rerun completes."""
    (end,) = run_together(KILLED.format(moment=moment, statement=statement), 1)
    assert -signal.SIGKILL == end.returncode
    database = open_database(url)
    (left,) = query.list_runs(database)
    rest = (left.status, left.outputs, left.metrics, query.list_artifacts(database))
    again = record.start(database, left)
    finished = record.finish(database, again.id, make_training())
    database.close()
    assert ("running", (), {}, []) == rest
    assert (left.id, "completed", 1) == (finished.id, finished.status, len(finished.outputs))


@on_every_database
def test_killed_while_migrating(url: str, run_together: RunTogether) -> None:
    """A process killed while it makes the tables leaves a file that the next one can use."""
    (end,) = run_together(KILLED_MIGRATING, 1)
    assert -signal.SIGKILL == end.returncode
    database = open_database(url)
    runs = query.list_runs(database)
    database.close()
    assert [[]] == [runs]
