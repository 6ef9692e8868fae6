"""Databases that open, and those that do not: what the user is told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from chapkit_flows.errors import DatabaseLocked, DatabaseTooNew, DatabaseUnavailable
from chapkit_flows.lineage import query, record
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.failures import mask
from chapkit_flows.lineage.migrations import REVISIONS
from chapkit_flows.testing.facts import make_run, make_training, record_run


def test_new_file_in_a_new_folder(url: str, path: Path) -> None:
    """Opening makes folder, file and tables, with the settings that keep facts safe."""
    database = open_database(url)
    with database.read() as session:
        pragmas = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        found = [session.scalar(text(f"PRAGMA {pragma}")) for pragma in pragmas]
    database.close()
    assert path.is_file()
    assert ["wal", 1, 2, 30_000] == found


def test_open_again_finds_the_facts(url: str) -> None:
    """Facts outlive the process that recorded them."""
    database = open_database(url)
    fact = record_run(database, make_training())
    database.close()
    database = open_database(url)
    found = query.get_run(database, fact.id)
    database.close()
    assert fact == found


def test_warm_open_imports_no_alembic(url: str) -> None:
    """Opening a database that needs no migration imports neither Alembic nor Prefect nor pandas."""
    open_database(url).close()
    script = (
        "import sys; from chapkit_flows.lineage.engine import open_database; "
        f"open_database({url!r}).close(); print({{'alembic', 'prefect', 'pandas'}} & set(sys.modules))"
    )
    end = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert end.stdout.strip() == str(set())


def test_copy_that_lost_its_mode(url: str, path: Path) -> None:
    """A backup, which SQLite writes in its old mode, gets readers and a writer at once again when opened."""
    open_database(url).close()
    copy = path.with_name("copy.db")
    with sqlite3.connect(path) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    connection.close()
    database = open_database(f"sqlite:///{copy}")
    with database.read() as session:
        mode = session.scalar(text("PRAGMA journal_mode"))
    database.close()
    assert mode == "wal"


def test_newer_database(url: str, path: Path) -> None:
    """A database of a newer version is refused, naming both revisions and the remedy, and is not touched."""
    open_database(url).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lineage_alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseTooNew, match=rf"revision 9999.* {REVISIONS[-1]}\..*pip install -U chapkit-flows"):
        open_database(url)
    assert before == path.read_bytes()


def test_locked_by_a_writer(url: str, path: Path) -> None:
    """While another process writes for longer than the timeout, writing fails with the remedy; reading works."""
    database = open_database(f"{url}?timeout=0.05")
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseLocked, match=r"lineage\.db.*Wait for it to end"):
        record.start(database, make_run())
    runs = query.list_runs(database)
    other.rollback()
    record.start(database, make_run())
    other.close()
    database.close()
    assert [[]] == [runs]


def test_locked_while_opening(url: str, path: Path) -> None:
    """A file that another process holds for itself cannot be opened."""
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseLocked, match="Another process"):
        open_database(f"{url}?timeout=0.05")
    other.close()


def test_writer_waits_for_its_turn(url: str, path: Path) -> None:
    """A transaction that reads first and then writes is not refused because another one wrote in between."""
    database = open_database(url)
    with database.write() as session:
        session.scalar(text("SELECT count(*) FROM lineage_run"))
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    database.close()


def test_opened_read_only(url: str, path: Path) -> None:
    """Facts can be read through a read-only URL; writing says that it cannot."""
    database = open_database(url)
    fact = record_run(database, make_training())
    database.close()
    database = open_database(f"sqlite:///file:{path}?mode=ro&uri=true")
    found = query.list_runs(database)
    with pytest.raises(DatabaseUnavailable, match=r"read-only.*writable"):
        record.start(database, make_run())
    database.close()
    assert [fact] == found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_file_without_the_right_to_write(url: str, path: Path) -> None:
    """A file that this user may not write can be read; writing says what to change."""
    open_database(url).close()
    path.chmod(0o444)
    database = open_database(url)
    with pytest.raises(DatabaseUnavailable, match="writable"):
        record.start(database, make_run())
    database.close()


def test_garbage(url: str, path: Path) -> None:
    """A file that is no database is named and stays as it is."""
    path.parent.mkdir()
    path.write_bytes(b"time_period,location\n" * 100)
    with pytest.raises(DatabaseUnavailable, match=r"lineage\.db.*not a database"):
        open_database(url)
    assert b"time_period,location\n" * 100 == path.read_bytes()


def test_folder_that_cannot_be_made(url: str, path: Path) -> None:
    """A folder below a file cannot be made, and the error says so."""
    path.parent.write_text("")
    with pytest.raises(DatabaseUnavailable, match="folder of the lineage database"):
        open_database(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("lineage.db", r"'lineage\.db' is not the URL of a database. Write sqlite:///"),
        ("oracular://u:hidden@host/x", r"oracular://u:\*\*\*@host/x is of a kind that is not installed"),
        ("postgresql+nothing://u:hidden@host/x", r"kind that is not installed"),
        ("sqlite:///x.db?timeout=hidden", r"is not the URL of a database"),
        ("mysql://u:hidden@host/x", r"needs the driver pymysql. Install it: pip install pymysql"),
        ("postgresql://u:hidden@host/x", r"needs the driver psycopg. Install it: pip install 'psycopg\[binary\]'"),
    ],
)
def test_unusable_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, message: str) -> None:
    """A URL that cannot be used is named without its password, with the remedy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pymysql", None)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseUnavailable, match=message) as caught:
        open_database(url)
    assert "u:hidden" not in str(caught.value)


def test_server_that_does_not_answer() -> None:
    """A server that cannot be reached is named without the password."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(DatabaseUnavailable, match=r"postgresql://u:\*\*\*@127\.0\.0\.1:1/x") as caught:
        open_database("postgresql://u:hidden@127.0.0.1:1/x")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("expected", "url"),
    [
        ("postgresql://u:***@host/x", "postgresql://u:p%40ss@host/x"),
        ("postgresql://host/x?password=***", "postgresql://host/x?password=hidden"),
        ("sqlite:////a/lineage.db", "sqlite:////a/lineage.db"),
        ("post gres://***@host/x", "post gres://u:hidden@host/x"),
    ],
)
def test_masked_url(expected: str, url: str) -> None:
    """A shown URL has no password, wherever it was written."""
    assert expected == mask(url)
