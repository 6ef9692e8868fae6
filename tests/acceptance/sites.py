"""A running installation, and how tests talk to it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from chapkit_flows import ChapkitFlowsSettings, Resources, open_resources

ROOT = Path(__file__).parents[2]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def run_program(arguments: Sequence[object], *, folder: Path, environment: Mapping[str, str]) -> str:
    """What a program prints; fails with all of it if the program does."""
    done = subprocess.run(
        list(map(str, arguments)),
        cwd=folder,
        # A shell sets PWD, and prefect.yaml uses it.
        env={**environment, "PWD": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def script(name: str) -> Path:
    """A program of this environment."""
    return Path(sys.executable).with_name(name)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A running installation.

    Attributes:
        api: A client of the Prefect server.
        folder: The copy of the repository that the deployments were made from.
        home: Where the worker's runs keep bytes and facts.
        environment: Environment variables of its programs.
        deployments: What each `prefect deploy --all` printed.
    """

    api: httpx.Client
    folder: Path
    home: Path
    environment: Mapping[str, str]
    deployments: tuple[str, str]

    @property
    def resources(self) -> Resources:
        """The store and the database of the worker's runs."""
        return open_resources(ChapkitFlowsSettings(home=self.home))

    def read(self, path: str) -> Any:
        """Read from the REST API."""
        return self.api.get(path).raise_for_status().json()

    def create_run(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Create a run of a deployment as the UI does, and return its id."""
        found = self.read(f"/deployments/name/{deployment}")["id"]
        made = self.api.post(f"/deployments/{found}/create_flow_run", json={"parameters": parameters})
        return str(made.raise_for_status().json()["id"])

    def has_deployment(self, name: str, *, while_running: subprocess.Popen[bytes]) -> bool:
        """Wait until a deployment is there; False if the process that makes it ends before."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and while_running.poll() is None:
            if self.api.get(f"/deployments/name/{name}").is_success:
                return True
            time.sleep(0.25)
        return False

    def wait_for(self, flow_run_id: str) -> dict[str, Any]:
        """The final state of a run."""
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            state: dict[str, Any] = self.read(f"/flow_runs/{flow_run_id}")["state"]
            if state["type"] in FINAL:
                return state
            time.sleep(0.25)  # the server has no way to be told
        raise AssertionError(f"the run is still {state['name']}: {self.logs(flow_run_id)}")

    def logs(self, flow_run_id: str) -> str:
        """What a run has logged."""
        wanted = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "limit": 200}
        found = self.api.post("/logs/filter", json=wanted).raise_for_status().json()
        return "\n".join(line["message"] for line in found)

    def artifacts(self, flow_run_id: str) -> list[dict[str, Any]]:
        """What the page of a run shows under Artifacts."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
        found: list[dict[str, Any]] = self.api.post("/artifacts/filter", json=wanted).raise_for_status().json()
        return found
