"""Several processes on one database, and processes that are killed."""

from __future__ import annotations

import signal

import pytest
from conftest import RunTogether, on_every_database

from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.testing.facts import make_training

RECORD_25 = """
from chapkit_flows.refs import new_id
database = open_database(url)
for number in range(25):
    record_run(database, make_training(workspace=new_id()))
database.close()
"""
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
