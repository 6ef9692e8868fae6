"""Processes that do the same thing to one database at the same moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mariadb_server import create_mariadb_database
from postgresql import create_postgresql_database

from chapkit_flows.refs import new_id

on_every_database = pytest.mark.parametrize("url", ["sqlite", "postgresql", "mariadb"], indirect=True)

RunTogether = Callable[[str, int], list[subprocess.CompletedProcess[str]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "lineage.db"


@pytest.fixture
def url(request: pytest.FixtureRequest, path: Path) -> str:
    """The URL of a new database: on SQLite, or on the kind of server that `on_every_database` asks for."""
    kind = getattr(request, "param", "sqlite")
    if kind == "sqlite":
        return f"sqlite:///{path}"
    server, name = request.getfixturevalue(kind), f"test_{new_id().lower()}"
    return {"postgresql": create_postgresql_database, "mariadb": create_mariadb_database}[kind](server, name)


@pytest.fixture
def run_together(url: str) -> RunTogether:
    """Run a script in several processes, which get the URL as `url` and begin when all have imported."""

    def run(script: str, count: int) -> list[subprocess.CompletedProcess[str]]:
        prelude = (
            "import sys\n"
            "from chapkit_flows.lineage.engine import open_database\n"
            "from chapkit_flows.lineage import record\n"
            "from chapkit_flows.testing.facts import *\n"
            f"url = {url!r}\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
        )
        command = [sys.executable, "-c", prelude + script]
        pipe = subprocess.PIPE
        started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = [process.communicate(timeout=120) for process in started]
        return [
            subprocess.CompletedProcess(command, process.returncode, out, err)
            for process, (out, err) in zip(started, ends, strict=True)
        ]

    return run
