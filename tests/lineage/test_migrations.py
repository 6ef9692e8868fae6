"""The migrations against the tables, and against the names that the code knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from alembic.script import ScriptDirectory
from every_database import RunTogether, on_every_database
from sqlalchemy import insert, inspect, text

from chapkit_flows.lineage import query
from chapkit_flows.lineage.annotations import history, load_tags, set_tags
from chapkit_flows.lineage.assignments import Decision
from chapkit_flows.lineage.configs import record_config
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.experiments import Experiment, add_trial, open_experiment
from chapkit_flows.lineage.facts import NewEntry, Reading, RunFact
from chapkit_flows.lineage.migrations import REVISIONS, read_revision
from chapkit_flows.lineage.migrations.upgrade import downgrade, make_config
from chapkit_flows.lineage.readings import uri_digest
from chapkit_flows.lineage.registry import promote, register
from chapkit_flows.lineage.rows import from_reading
from chapkit_flows.lineage.tables import ReadingRow
from chapkit_flows.refs import new_id
from chapkit_flows.testing.facts import make_config as make_config_version
from chapkit_flows.testing.facts import make_training, record_chain, record_run

# Each revision's tables hold something while they are taken down.
ROWS = {
    "lineage_annotation",
    "lineage_reading",
    "lineage_config_entry",
    "lineage_model_version",
    "lineage_assignment",
    "lineage_experiment",
    "lineage_trial",
}
OPEN = """
open_database(url).close()
"""
KILLED_UPGRADING = """
import os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine

def kill(connection, cursor, statement, *rest):
    if "ix_lineage_artifact_created_at_id" in statement:
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", kill)
open_database(url)
"""


def go_back(url: str, revision: str) -> tuple[RunFact, RunFact]:
    """Bring a new database with facts in it back to an older revision; return its runs, newest first."""
    database = open_database(url)
    training, prediction = record_chain(database)
    read_again(database, training)
    set_tags(database, training.id, {"site": "A"}, by="ana")
    record_config(database, make_config_version(n_lags=3), NewEntry(origin="apply", author="ana"))
    version, why = register(database, training.output("model").id, by="ana"), Decision(actor="ana", reason="x")
    promote(database, version, alias="champion", expected=None, decision=why)
    experiment = open_experiment(database, Experiment(name="lags", models=("rain",), description="", author="ana"))
    add_trial(database, experiment, training.id, identity=training.inputs[0].artifact.digest)
    assert ROWS == {name for name in ROWS if count_rows(database, name)}
    with database.write() as session:
        downgrade(session.connection(), revision)
    database.close()
    return prediction, training


def read_again(database: Database, run: RunFact) -> None:
    """Say where the data of a run came from; an older revision forgets it."""
    artifact = run.inputs[0].artifact
    reading = Reading(
        id=new_id(),
        uri_digest=uri_digest("table.csv"),
        uri="table.csv",
        run_id=run.id,
        role="data",
        artifact_id=artifact.id,
        read_at=run.started_at,
    )
    with database.write() as session:
        session.execute(insert(ReadingRow), [from_reading(reading)])


def without_readings(runs: Sequence[RunFact]) -> list[RunFact]:
    return [replace(run, readings=()) for run in runs]


def count_rows(database: Database, table: str) -> int:
    with database.read() as session:
        return int(session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def find_revision(database: Database) -> str | None:
    with database.read() as session:
        return read_revision(session.connection())


def test_known_revisions_are_the_scripts(url: str) -> None:
    """The list that a fast open compares with names every script, in order, in one line."""
    database = open_database(url)
    with database.read() as session:
        scripts = ScriptDirectory.from_config(make_config(session.connection()))
    database.close()
    assert list(REVISIONS) == [script.revision for script in scripts.walk_revisions()][::-1]


def test_older_database_is_upgraded(url: str) -> None:
    """A database of an older revision is brought up to date when it is opened."""
    database = open_database(url)
    record_run(database, make_training())
    with database.write() as session:
        downgrade(session.connection(), "base")
        tables = inspect(session.connection()).get_table_names()
    database.close()
    database = open_database(url)
    with database.read() as session:
        revision = read_revision(session.connection())
    runs = query.list_runs(database)
    database.close()
    assert (["lineage_alembic_version"], REVISIONS[-1], []) == (tables, revision, runs)


@on_every_database
@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_facts_survive_the_way_down_and_up(url: str, revision: str) -> None:
    """What an older revision can hold is as it was after going back to it and up again; the rest can be said again."""
    prediction, training = go_back(url, revision)
    database = open_database(url)
    found, said = query.list_runs(database), history(database, training.id)
    tags = set_tags(database, training.id, {"site": "B"}, by="ana")
    standing, current = load_tags(database, [training.id]), find_revision(database)
    database.close()
    assert ([prediction, training], revision >= "0003") == (without_readings(found), bool(said))
    assert (revision >= "0004") == any(run.readings for run in found)
    assert ({training.id: tags}, REVISIONS[-1]) == (standing, current)


@on_every_database
def test_processes_upgrade_at_once(url: str, run_together: RunTogether) -> None:
    """Two processes that open an older database at once upgrade it once."""
    runs = go_back(url, REVISIONS[0])
    ends = run_together(OPEN, 2)
    assert [(0, "")] * 2 == [(end.returncode, end.stderr) for end in ends]
    database = open_database(url)
    found, current = query.list_runs(database), find_revision(database)
    database.close()
    assert ([*runs], REVISIONS[-1]) == (without_readings(found), current)


@on_every_database
def test_killed_while_upgrading(url: str, run_together: RunTogether) -> None:
    """A process killed in the middle of an upgrade leaves a database that the next one upgrades to its end."""
    runs = go_back(url, REVISIONS[0])
    (end,) = run_together(KILLED_UPGRADING, 1)
    assert end.returncode < 0
    database = open_database(url)
    found, current = query.list_runs(database), find_revision(database)
    database.close()
    assert ([*runs], REVISIONS[-1]) == (without_readings(found), current)
