"""A PostgreSQL server with the extensions that Prefect needs: Debian's, where it is installed.

The one that comes as a Python package has no `pg_trgm`, which a migration of Prefect's server creates.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import free_port
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

# The file system is a temporary one: nothing here has to survive a power cut.
OPTIONS = (
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "unix_socket_directories=",
    "log_statement=none",
)


def find_postgres() -> Path | None:
    """The folder of the newest server that has the extension; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda file: int(file.parts[4]))
    extension = "/usr/share/postgresql/{}/extension/pg_trgm.control"
    usable = [file.parent for file in found if Path(extension.format(file.parts[4])).exists()]
    return usable[-1] if usable else None


@contextmanager
def postgresql_program(programs: Path, folder: Path) -> Iterator[str]:
    """The URL of a server in an empty folder, with `{name}` in the place of the database."""
    data, log, port = folder / "data", folder / "server.log", free_port()
    # The server refuses to run as root, as tests in a container do.
    user = "postgres" if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    made = subprocess.run(
        [programs / "initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust", "--no-sync"],
        user=user,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{made.stderr[-1000:]}")
    options = [part for option in OPTIONS for part in ("-c", option)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), *options],
            user=user,
            cwd=folder,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    server = f"postgresql://postgres@127.0.0.1:{port}/{{name}}"
    try:
        _wait_until_it_answers(server, process, log)
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # SIGTERM would wait for its clients
        process.wait(timeout=60)


def create_database(server: str, name: str) -> str:
    """Make an empty database; return its URL."""
    _execute(server, f"CREATE DATABASE {name}")
    return server.format(name=name)


def _execute(server: str, statement: str) -> None:
    admin = create_engine(
        server.format(name="postgres").replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
    )
    try:
        with admin.connect() as connection:
            connection.execute(text(statement))
    finally:
        admin.dispose()


def _wait_until_it_answers(server: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _execute(server, "SELECT 1")
        except OperationalError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text(errors='replace')[-2000:]}")
