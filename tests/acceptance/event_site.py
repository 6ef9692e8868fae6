"""A Prefect server of its own, with the services that events and automations need, and a worker."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from server_api import connect, stop
from sites import Site, run_program, script

SLOW = Path(__file__).parent / "slow"
# The services that the session's server does without, and periods that a test can wait for.
SERVER = {
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "true",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "true",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
}
CLIENT = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


@dataclass(frozen=True, kw_only=True)
class EventSite(Site):
    """An installation whose server persists events and fires automations."""

    log: Path

    def run(self, *arguments: object) -> str:
        """What a program of this installation prints."""
        return run_program(
            [script(str(arguments[0])), *arguments[1:]], folder=self.folder, environment=self.environment
        )

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """The events that the server has stored, newest first."""
        body = {"filter": {"order": "DESC", **wanted}, "limit": 50}
        found: list[dict[str, Any]] = self.api.post("/events/filter", json=body).raise_for_status().json()["events"]
        return found

    @contextmanager
    def worker(self, pool: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of a pool."""
        with self.log.open("ab") as sink:
            process = subprocess.Popen(
                [script("prefect"), "worker", "start", "--pool", pool],
                cwd=self.folder,
                env=self.environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            stop(process)


@contextmanager
def event_site(folder: Path) -> Iterator[EventSite]:
    """A server, and the slow models deployed to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    project = Path(shutil.copytree(SLOW, folder / "project"))
    environment = (
        os.environ
        | CLIENT
        | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME": str(folder / "chapkit-flows"),
        }
    )
    with (folder / "server.log").open("wb") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment | SERVER,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        with connect(environment["PREFECT_API_URL"]) as api:
            wait_until_healthy(api, server)
            site = EventSite(
                api=api,
                folder=project,
                home=folder / "chapkit-flows",
                environment=environment,
                deployments=("", ""),
                log=folder / "worker.log",
            )
            for pool in ("slow", "doomed"):
                api.post("/work_pools/", json={"name": pool, "type": "process"}).raise_for_status()
            site.run("prefect", "--no-prompt", "deploy", "--all")
            yield site
    finally:
        stop(server)


def wait_until_healthy(api: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """Return once a Prefect server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if api.get("/health").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the Prefect server did not start")


def alive(process: int) -> bool:
    """Whether a process runs: one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def labels(event: Mapping[str, Any], role: str) -> list[str]:
    """The ids of an event's related resources in a role."""
    return [item["prefect.resource.id"] for item in event["related"] if item["prefect.resource.role"] == role]
