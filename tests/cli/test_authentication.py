"""A real Prefect server that wants a password."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from command_line import MODELS, CommandLine
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from server_api import stop
from servers import free_port

DOCUMENT = f"block_type_slug: small-config\nname: guarded\nmodel: {MODELS}:mean\n"
TOLD = "wants authentication (401). Set PREFECT_API_AUTH_STRING to user:password"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the API of a server that knows one user."""
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_AUTH_STRING": "admin:s3cret",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    }
    environment.pop("PREFECT_API_URL")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 180
        while not _is_healthy(url):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield url
    finally:
        stop(process)


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def test_password(guarded: str, home: Path, cli: CommandLine, tmp_path: Path) -> None:
    """With the right password commands do their work; with a wrong one, or none, they say which variable to set."""
    (tmp_path / "guarded.yaml").write_text(DOCUMENT)
    for password in (None, "admin:wrong", "admin:s3cret"):
        with temporary_settings({PREFECT_API_URL: guarded, PREFECT_API_AUTH_STRING: password}):
            applied = cli("blocks", "apply", tmp_path / "guarded.yaml")
            examined = cli("doctor", "--file", "absent.yaml", "--json")
        found = {one["check"]: one for one in examined.json["checks"]}["server"]
        if password == "admin:s3cret":
            assert (0, "ok") == (applied.code, found["status"]), applied.err
        else:
            assert (2, True) == (applied.code, f"The Prefect server at {guarded} {TOLD}" in applied.err), applied.err
            assert (1, "error", True) == (examined.code, found["status"], TOLD in found["detail"])
            assert "wrong" not in applied.err + examined.out
