"""Runs that are cancelled or killed, and the automations of deployments/automations, on a server with events."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from event_site import EventSite, alive, event_site, labels
from server_api import eventually, stop
from sites import ROOT, script

from chapkit_flows.data.samples import SampleSpec, make_sample, write_sample
from chapkit_flows.errors import RunNotFound
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_run, list_runs
from chapkit_flows.lineage.record import start
from chapkit_flows.refs import RunRef, new_id, now

SAVE_ALERTS = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
block = CustomWebhookNotificationBlock(name="alerts", url=sys.argv[1], json_data={"text": "{{subject}}: {{body}}"})
block.save("alerts")
"""
# Of the shipped automations: the model of these tests, and periods that they can wait for. The heartbeat is 30 seconds;
# on a busy machine one and a half of them pass between two, and a run that lives would be called crashed.
CHANGES = {
    "dengue-retrain/retrain": "slow-train/train",
    "dengue-score/score": "slow-score/score",
    "chapkit.model: dengue": "chapkit.model: slow",
    "within: 540": "within: 90",
    "within: 691200": "within: 10",
}
CASES = ("load", "fit", "commands", "store", "served")
CANCELLING = {"type": "CANCELLING", "name": "Cancelling"}


@pytest.fixture(scope="module")
def posts() -> Iterator[tuple[str, list[str]]]:
    """A place to send notifications to: its URL, and what has arrived."""
    arrived: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", arrived
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, posts: tuple[str, list[str]]) -> Iterator[EventSite]:
    """A server with events, the slow models deployed to it, and a block to notify with."""
    with event_site(tmp_path_factory.mktemp("events")) as found:
        found.run("python", "-c", SAVE_ALERTS, posts[0])
        yield found


@pytest.fixture(scope="module")
def automated(site: EventSite) -> list[dict[str, Any]]:
    """What `automations apply` says, twice, of the documents for the slow model, with shorter periods."""
    folder = Path(shutil.copytree(ROOT / "deployments/automations", site.folder / "automations"))
    for file in folder.iterdir():
        text = file.read_text()
        for old, new in CHANGES.items():
            text = text.replace(old, new)
        file.write_text(text)
    return [json.loads(site.run("chapkit-flows", "automations", "apply", folder, "--json")) for _ in range(2)]


@pytest.fixture(scope="module")
def bereft(
    site: EventSite, automated: object, tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Two runs whose worker was killed, one of them with it; other tests go on while nobody misses it yet."""
    marks = {case: tmp_path_factory.mktemp(case) for case in ("doomed", "orphan")}
    with site.worker("doomed") as worker:
        flow_run_ids = {case: _begin(site, tables, folder, "doomed") for case, folder in marks.items()}
        processes = {case: _stands_still(folder, "fit") for case, folder in marks.items()}
        worker.kill()
        os.kill(processes["doomed"], signal.SIGKILL)
        worker.wait()
    (marks["orphan"] / "go").touch()
    return flow_run_ids


@pytest.fixture(scope="module")
def worker(site: EventSite, bereft: object) -> Iterator[None]:
    """A worker that lives."""
    with site.worker("slow"):
        yield


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
    step = case if case in ("load", "store") else "fit"
    data = tables["training"]
    if step == "load":
        data = marks / "fifo.csv"
        os.mkfifo(data)
    parameters = {"config": {"step": step, "marks": str(marks)}, "data": str(data)}
    names = {"commands": "slow-commands-train/commands", "doomed": "slow-train/doomed"}
    names["served"] = "slow-commands-train/served"
    return site.create_run(names.get(case, "slow-train/train"), parameters)


def _process_of(site: EventSite, flow_run_id: str) -> int:
    """The process that a worker has started for a run."""
    pid: str = eventually(lambda: site.read(f"/flow_runs/{flow_run_id}")["infrastructure_pid"], bool)
    return int(pid.rpartition(":")[2])


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _cancel(site: EventSite, flow_run_id: str) -> None:
    """As the button of the UI does."""
    answer = site.api.post(f"/flow_runs/{flow_run_id}/set_state", json={"state": CANCELLING})
    assert "ACCEPT" == answer.raise_for_status().json()["status"], answer.text


@pytest.fixture(scope="module")
def served(site: EventSite) -> Iterator[None]:
    """A process that serves the model of commands, without a worker."""
    with (site.log.with_name("serve.log")).open("wb") as sink:
        process = subprocess.Popen(
            [script("python"), "model.py"],
            cwd=site.folder,
            env={**site.environment, "PREFECT_RUNNER_POLL_FREQUENCY": "2"},
            stdout=sink,
            stderr=sink,
        )
    try:
        assert site.has_deployment("slow-commands-train/served", while_running=process)
        yield
    finally:
        stop(process)


@pytest.fixture(scope="module")
def cancelled(
    site: EventSite, worker: None, served: None, tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """A run cancelled at each step: what there was, and how long it took; all at once, for they mostly wait."""
    found: dict[str, dict[str, Any]] = {}
    for case in CASES:
        marks = tmp_path_factory.mktemp(case)
        found[case] = {"marks": marks, "flow_run_id": _begin(site, tables, marks, case)}
    for case, run in found.items():
        if case == "load":
            eventually(lambda run=run: _status(site, run["flow_run_id"]), lambda status: status == "running")
        names = {"load": [], "commands": ["fit", "child"], "served": ["fit", "child"]}.get(case, [case])
        run["pids"] = [_stands_still(run["marks"], name) for name in names]
        # Under `.serve()` the server does not know the process of the run: it is the one that started the command.
        run["pids"].append(_parent(run["pids"][0]) if case == "served" else _process_of(site, run["flow_run_id"]))
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


@pytest.mark.parametrize("case", CASES)
def test_cancelled_run_ends_at_once(site: EventSite, cancelled: dict[str, dict[str, Any]], case: str) -> None:
    """Cancelled at any step, a run ends and records itself before Prefect has to kill it; both call it cancelled."""
    run = cancelled[case]
    fact = _run(site, run["flow_run_id"])
    assert ("CANCELLED", "cancelled") == (run["state"]["type"], fact.status)
    # Of one that was killed, lineage repeats what Prefect says. The clock alone would tell how busy the machine is.
    assert "The run was cancelled." == str(fact.error).splitlines()[0], site.logs(run["flow_run_id"])
    assert run["seconds"] < 60, site.logs(run["flow_run_id"])


@pytest.mark.parametrize("case", ["commands", "served"])
def test_cancelled_command_keeps_its_workspace(
    site: EventSite, cancelled: dict[str, dict[str, Any]], case: str
) -> None:
    """What a cancelled command left is kept, as a failed artifact, whether a worker ran it or `.serve()`."""
    (left,) = _run(site, cancelled[case]["flow_run_id"]).outputs
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
    wanted = {"event": {"name": ["chapkit.run.crashed"]}, "related": {"id": [f"chapkit.run.{run.id}"]}}
    (event,) = eventually(lambda: site.events(**wanted), bool)
    assert [f"chapkit.run.{run.id}"] == labels(event, "run")
    assert f"prefect.flow-run.{run.flow_run_id}" in labels(event, "flow-run")


def test_killed_run_is_finished_by_a_retry(site: EventSite, killed: dict[str, Any]) -> None:
    """A retry takes up the run that was killed, finishes it, and nothing is there twice."""
    before = _run(site, killed["flow_run_id"])
    site.run("prefect", "flow-run", "retry", killed["flow_run_id"])
    eventually(lambda: _status(site, killed["flow_run_id"]), lambda status: status == "completed")
    assert "COMPLETED" == site.wait_for(killed["flow_run_id"])["type"]
    after = _run(site, killed["flow_run_id"])
    assert ("completed", None, before.id) == (after.status, after.error, after.id)
    assert [("data", "dataset")] == [(edge.role, edge.artifact.kind) for edge in after.inputs]
    assert ["model"] == [edge.role for edge in after.outputs]
    assert 1 == sum(run.flow_run_id == killed["flow_run_id"] for run in list_runs(site.resources.database))


def test_automations_are_applied_once(automated: list[dict[str, Any]]) -> None:
    """One command creates the shipped automations; again, it changes nothing."""
    first, second = automated
    assert {"created"} == {item["change"] for item in first["automations"]}
    assert 6 == first["changed"]
    assert 0 == second["changed"]


def test_failure_is_notified(site: EventSite, killed: dict[str, Any], posts: tuple[str, list[str]]) -> None:
    """A crashed run is posted to where notifications go, with the command that shows it."""
    run_id = _run(site, killed["flow_run_id"]).id
    arrived = eventually(lambda: [text for text in posts[1] if run_id in text], bool)
    assert "train slow: chapkit.run.crashed: train of the model slow ended with chapkit.run.crashed" in arrived[0]
    assert f"chapkit-flows runs show {run_id}" in arrived[0]


@pytest.fixture(scope="module")
def predicted(site: EventSite, worker: None, tables: dict[str, Path]) -> list[str]:
    """Two predictions; what the second reads as historic has changed since the first."""
    trained = site.create_run("slow-train/train", {"config": {}, "data": str(tables["training"])})
    assert "COMPLETED" == site.wait_for(trained)["type"], site.logs(trained)
    made = []
    for _ in range(2):
        parameters = {
            "model": _run(site, trained).output("model").id,
            "historic": str(tables["historic"]),
            "future": str(tables["future"]),
        }
        made.append(site.create_run("slow-predict/predict", parameters))
        assert "COMPLETED" == site.wait_for(made[-1])["type"], site.logs(made[-1])
        tables["historic"].write_text(tables["historic"].read_text() + "\n")
    return made


def test_changed_data_is_trained_on(site: EventSite, predicted: list[str], tables: dict[str, Path]) -> None:
    """Once a prediction reads data that has changed, the model is trained on it."""
    uri = str(tables["historic"])

    def look() -> list[str]:
        found = site.api.post("/flow_runs/filter", json={"limit": 100}).raise_for_status().json()
        return [run["id"] for run in found if run["parameters"].get("data") == uri]

    found = eventually(look, bool)
    assert 1 == len(found)
    assert "COMPLETED" == site.wait_for(found[0])["type"], site.logs(found[0])
    assert ("train", "completed") == (_run(site, found[0]).flow, _run(site, found[0]).status)


def test_changed_data_is_scored_with(site: EventSite, predicted: list[str], tables: dict[str, Path]) -> None:
    """The same change asks for the scores of the predictions so far; those without truth wait."""
    uri = str(tables["historic"])

    def look() -> list[RunFact]:
        runs = list_runs(site.resources.database, flow="score", model="slow", status="completed")
        return [run for run in runs if run.parameters["truth"] == uri]

    (run,) = eventually(look, bool)
    assert (0, 0) == (run.metrics["scored"], run.metrics["failed"])
    assert run.metrics["waiting"] >= 1


def test_missing_forecast_is_notified(predicted: list[str], posts: tuple[str, list[str]]) -> None:
    """Once a model has made a prediction and no other in time, that is posted."""
    arrived = eventually(lambda: [text for text in posts[1] if "No new forecast" in text], bool)
    assert "the last forecast is overdue" in arrived[0]


def test_run_killed_with_its_worker_is_crashed_on_both_sides(
    site: EventSite, bereft: dict[str, str], worker: None
) -> None:
    """Three heartbeats after the last one the run is called crashed on the server and in lineage; no hand is moved."""
    doomed = bereft["doomed"]
    state = site.wait_for(doomed)
    # By the automation, or by the next run of the model if that comes first.
    assert ("CRASHED", "No heartbeat") == (state["type"], state["message"][:12])
    status = eventually(lambda: _status(site, doomed), lambda status: status != "running")
    assert "crashed" == status
    assert "No heartbeat" in str(_run(site, doomed).error)


def test_run_whose_worker_was_killed_is_finished_by_a_retry(
    site: EventSite, bereft: dict[str, str], worker: None
) -> None:
    """A run that loses only its worker ends at its next log line, crashed on both sides; a retry finishes it."""
    orphan = bereft["orphan"]
    assert "CRASHED" == site.wait_for(orphan)["type"]
    before = _run(site, orphan)
    assert ("crashed", "The process was told to exit") == (before.status, str(before.error)[:28])
    site.run("prefect", "flow-run", "retry", orphan)
    with site.worker("doomed"):
        eventually(lambda: _status(site, orphan), lambda status: status == "completed")
        assert "COMPLETED" == site.wait_for(orphan)["type"], site.logs(orphan)
    after = _run(site, orphan)
    assert ("completed", before.id, ["model"]) == (after.status, after.id, [edge.role for edge in after.outputs])


@pytest.mark.parametrize(("before", "after"), [("RUNNING", "CRASHED"), ("CANCELLING", "CANCELLED")])
def test_silent_run_is_settled_by_hand(site: EventSite, before: str, after: str) -> None:
    """Without an automation, `runs settle` finds the run whose last heartbeat is old, and marks it on both sides."""
    flow = site.api.post("/flows/", json={"name": "silent"}).raise_for_status().json()["id"]
    flow_run_id = site.api.post("/flow_runs/", json={"flow_id": flow}).raise_for_status().json()["id"]
    for state in dict.fromkeys(("RUNNING", before)):
        body = {"state": {"type": state, "name": state.title()}, "force": True}
        site.api.post(f"/flow_runs/{flow_run_id}/set_state", json=body).raise_for_status()
    run = start(site.resources.database, RunRef(id=new_id(), flow="train", model="silent", flow_run_id=flow_run_id))
    resource = {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}"}
    beat = {"event": "prefect.flow-run.heartbeat", "resource": resource, "id": str(uuid4())}
    beat["occurred"] = (now() - timedelta(minutes=5)).isoformat()
    site.api.post("/events", json=[beat]).raise_for_status()
    eventually(lambda: site.events(resource={"id": [resource["prefect.resource.id"]]}), bool)
    settled = json.loads(site.run("chapkit-flows", "runs", "settle", "--json"))["settled"]
    assert [(run.id, after.lower())] == [(item["id"], item["status"]) for item in settled]
    assert after == site.read(f"/flow_runs/{flow_run_id}")["state"]["type"]
