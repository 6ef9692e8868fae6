"""A MariaDB server that the tests start, and databases on it."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

# The file system is a temporary one: nothing here has to survive a power cut.
OPTIONS = ("--skip-networking", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M")


@contextmanager
def mariadb_server(folder: Path) -> Iterator[str]:
    """The URL of a server in a folder, up to the name of a database: `mysql://root@localhost/{name}?…`."""
    data, socket, log = folder / "data", folder / "socket", folder / "server.log"
    server = f"mysql://root@localhost/{{name}}?unix_socket={socket}"
    user, shared = getpass.getuser(), f"--datadir={data}"
    install = ["mariadb-install-db", "--no-defaults", shared, f"--user={user}", "--skip-test-db"]
    made = subprocess.run([*install, "--auth-root-authentication-method=normal"], capture_output=True, text=True)
    if made.returncode != 0:
        raise RuntimeError(f"mariadb-install-db failed:\n{made.stdout[-1000:]}{made.stderr[-1000:]}")
    command = [find_mariadbd(), "--no-defaults", shared, f"--user={user}", f"--socket={socket}", *OPTIONS]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    try:
        _wait_until_it_answers(server, process, log)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


def find_mariadbd() -> str:
    """The program of the server; empty where it is not installed."""
    return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin") or ""


def create_mariadb_database(server: str, name: str) -> str:
    """Make an empty database on a server, with the server's defaults; return its URL."""
    _execute(server, f"CREATE DATABASE {name}")
    return server.format(name=name)


def _execute(server: str, statement: str) -> None:
    url = server.format(name="mysql").replace("mysql://", "mysql+pymysql://")
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
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
    raise RuntimeError(f"MariaDB did not start:\n{log.read_text(errors='replace')[-2000:]}")
