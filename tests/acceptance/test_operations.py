"""Runs that are cancelled or killed, and the automations of deployments/automations, on a server with events."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from event_site import EventSite, alive, event_site
from server_api import eventually

from chapkit_flows.data.samples import SampleSpec, make_sample, write_sample
from chapkit_flows.errors import RunNotFound
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_run

CANCELLING = {"type": "CANCELLING", "name": "Cancelling"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventSite]:
    """A server with events, the slow models deployed to it, and a worker."""
    with event_site(tmp_path_factory.mktemp("events")) as found, found.worker():
        yield found


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small tables to train and predict with."""
    spec = SampleSpec(covariates=("rainfall",), places=2, periods=12, horizon=3)
    return write_sample(make_sample(spec), tmp_path_factory.mktemp("tables"))


def _stands_still(marks: Path, step: str) -> int:
    return int(eventually(lambda: _read(marks / f"{step}.pid"), bool))


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _begin(site: EventSite, tables: dict[str, Path], marks: Path, case: str) -> str:
    """Create a run that will stand still at a step."""
    step = "fit" if case == "commands" else case
    data = tables["training"]
    if step == "load":
        data = marks / "fifo.csv"
        os.mkfifo(data)
    parameters = {"config": {"step": step, "marks": str(marks)}, "data": str(data)}
    name = "slow-commands-train/commands" if case == "commands" else "slow-train/train"
    return site.create_run(name, parameters)


def _cancel(site: EventSite, flow_run_id: str) -> None:
    """As the button of the UI does."""
    answer = site.api.post(f"/flow_runs/{flow_run_id}/set_state", json={"state": CANCELLING})
    assert "ACCEPT" == answer.raise_for_status().json()["status"]


@pytest.fixture(scope="module")
def cancelled(
    site: EventSite, tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """A run cancelled at each step: what there was, and how long it took; all at once, for they mostly wait."""
    found: dict[str, dict[str, Any]] = {}
    for case in ("load", "fit", "commands", "store"):
        marks = tmp_path_factory.mktemp(case)
        found[case] = {"marks": marks, "flow_run_id": _begin(site, tables, marks, case)}
    for case, run in found.items():
        if case == "load":
            eventually(lambda run=run: _status(site, run["flow_run_id"]), lambda status: status == "running")
        names = {"load": [], "commands": ["fit", "child"]}.get(case, [case])
        run["pids"] = [_stands_still(run["marks"], name) for name in names]
        run["pids"].append(int(site.read(f"/flow_runs/{run['flow_run_id']}")["infrastructure_pid"].rpartition(":")[2]))
        _cancel(site, run["flow_run_id"])
        began = time.monotonic()
        eventually(lambda run=run: [alive(pid) for pid in run["pids"]], lambda states: not any(states))
        run["seconds"] = time.monotonic() - began
    for run in found.values():
        run["state"] = site.wait_for(run["flow_run_id"])
    return found


def _status(site: EventSite, flow_run_id: str) -> str:

    try:
        return get_run(site.resources.database, flow_run_id).status
    except RunNotFound:
        return ""


def _run(site: EventSite, flow_run_id: str) -> RunFact:
    return get_run(site.resources.database, flow_run_id)


@pytest.mark.parametrize("case", ["load", "fit", "commands", "store"])
def test_cancelled_run_ends_at_once(site: EventSite, cancelled: dict[str, dict[str, Any]], case: str) -> None:
    """Cancelled at any step, a run ends before Prefect has to kill it; both Prefect and lineage call it cancelled."""
    run = cancelled[case]
    assert ("CANCELLED", "cancelled") == (run["state"]["type"], _run(site, run["flow_run_id"]).status)
    print(case, run["seconds"], run["pids"])
    assert run["seconds"] < 25, site.logs(run["flow_run_id"])


def test_cancelled_command_keeps_its_workspace(site: EventSite, cancelled: dict[str, dict[str, Any]]) -> None:
    """What a cancelled command left is kept, as a failed artifact."""
    (left,) = _run(site, cancelled["commands"]["flow_run_id"]).outputs
    assert ("failed_workspace", "failed") == (left.role, left.artifact.status)


@pytest.fixture(scope="module")
def killed(
    site: EventSite, tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, cancelled: dict[str, Any]
) -> dict[str, Any]:
    """A run whose process is killed while its worker lives."""
    marks = tmp_path_factory.mktemp("killed")
    flow_run_id = _begin(site, tables, marks, "fit")
    os.kill(_stands_still(marks, "fit"), signal.SIGKILL)
    state = site.wait_for(flow_run_id)
    status = eventually(lambda: _status(site, flow_run_id), lambda status: status != "running")
    return {"flow_run_id": flow_run_id, "state": state, "status": status}


def test_killed_process_is_crashed_on_both_sides(killed: dict[str, Any]) -> None:
    """A run whose process is killed is crashed on the server and in lineage, for the worker tells both."""
    assert ("CRASHED", "crashed") == (killed["state"]["type"], killed["status"])


def test_crash_is_announced(site: EventSite, killed: dict[str, Any]) -> None:
    """The event of a crashed run names the run and the flow run, though its own process could send none."""
    run = _run(site, killed["flow_run_id"])
    wanted = {"event": {"name": ["chapkit.run.crashed"]}}
    found = eventually(lambda: site.events(**wanted), bool)
    event = next(item for item in found if item["payload"]["run_id"] == run.id)
    assert [f"chapkit.run.{run.id}"] == labels(event, "run")
    assert f"prefect.flow-run.{run.flow_run_id}" in labels(event, "flow-run")
