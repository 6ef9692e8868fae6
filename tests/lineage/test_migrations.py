"""The migrations against the tables, and against the names that the code knows."""

from __future__ import annotations

from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from chapkit_flows.lineage import query
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.migrations import REVISIONS, read_revision
from chapkit_flows.lineage.migrations.upgrade import downgrade, make_config
from chapkit_flows.testing.facts import make_training, record_run


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
