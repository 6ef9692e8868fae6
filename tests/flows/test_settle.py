"""Runs whose process was killed, and how lineage learns of their end."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import CommandLine, model, write_tables
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed
from server_api import connect, eventually

from chapkit_flows import load_model, open_resources
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.flows import session
from chapkit_flows.flows.config_history import record_config
from chapkit_flows.flows.settle import record_end, settle
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.facts import NewEntry, Outcome, RunFact
from chapkit_flows.lineage.query import get_run
from chapkit_flows.lineage.record import finish, start
from chapkit_flows.refs import RunRef, new_id, now
from chapkit_flows.resources import Resources
from chapkit_flows.testing.facts import make_config
from chapkit_flows.upkeep.annotations import add_note, remove_tags, set_tags
from chapkit_flows.upkeep.bulk import tag

Begin = Callable[[str | None], RunFact]


def _set_state(api: httpx.Client, flow_run_id: str, state: str) -> None:
    body = {"state": {"type": state, "name": state.title(), "message": "by hand"}, "force": True}
    api.post(f"/flow_runs/{flow_run_id}/set_state", json=body).raise_for_status()


@pytest.fixture
def begin(server: str, home: Path) -> Begin:
    """Record a run that began an hour ago and never ended; its flow run ends in a state, or does not."""

    def work(state: str | None) -> RunFact:
        with connect(server) as api:
            flow = api.post("/flows/", json={"name": "killed"}).raise_for_status().json()["id"]
            flow_run_id = api.post("/flow_runs/", json={"flow_id": flow}).raise_for_status().json()["id"]
            _set_state(api, flow_run_id, "RUNNING")
            if state is not None:
                _set_state(api, flow_run_id, state)
        run = RunRef(id=new_id(), flow="train", model="mean", flow_run_id=flow_run_id)
        return start(open_resources().database, replace(run, started_at=now() - timedelta(hours=1)))

    return work


@pytest.mark.parametrize(
    ("state", "status"), [("CRASHED", "crashed"), ("CANCELLED", "cancelled"), ("FAILED", "failed")]
)
def test_settled_as_the_server_says(begin: Begin, cli: CommandLine, state: str, status: str) -> None:
    """A run that is recorded as running ends in lineage as it ended on the server; what lies in the store agrees."""
    run = begin(state)
    ended = cli("runs", "settle", "--json")
    resources = open_resources()
    settled = get_run(resources.database, run.id)
    assert (status, f"Prefect says {state.title()}: by hand") == (settled.status, settled.error)
    assert [settled.to_dict()] == ended.json["settled"]
    assert settled.to_dict() == resources.store.read_manifest(f"runs/{run.id}")
    assert [] == cli("runs", "settle", "--json").json["settled"]


async def test_run_that_ends_meanwhile_stays_as_it_ended(begin: Begin) -> None:
    """A run that records its own end while the server is asked is not settled, and keeps its manifest."""
    run, resources = begin("COMPLETED"), open_resources()
    done = finish(resources.database, run.id, Outcome(status="completed", metrics={"crps": 1.5}))
    resources.store.write_manifest(f"runs/{run.id}", done.to_dict())
    assert [] == await settle(resources, runs=[run])
    assert done == get_run(resources.database, run.id)
    assert done.to_dict() == resources.store.read_manifest(f"runs/{run.id}")


def test_run_that_is_settled_while_it_records_its_end(
    server: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that counts as dead between its manifests and its row is completed in both."""

    def finish_late(database: Database, run_id: str, outcome: Outcome, **options: Any) -> RunFact:
        record_end(open_resources(), get_run(database, run_id), Crashed(message="No heartbeat."))
        assert "crashed" == get_run(database, run_id).status
        return finish(database, run_id, outcome, **options)

    mean = load_model(model("mean"))
    monkeypatch.setattr(session, "finish", finish_late)
    run_id = mean.train(mean.config(), str(write_tables(tmp_path)["training"])).run_id
    run, resources = get_run(open_resources().database, run_id), open_resources()
    assert "completed" == run.status
    assert run.to_dict() == resources.store.read_manifest(f"runs/{run_id}")


def test_run_that_fails_meanwhile_says_why_itself(begin: Begin) -> None:
    """What a run says of its own end stands, in its row and in its manifest."""
    run, resources = begin("FAILED"), open_resources()
    failed = finish(resources.database, run.id, Outcome(status="failed", error="its own end"))
    assert record_end(resources, run, Crashed(message="No heartbeat.")) is None
    assert failed == get_run(resources.database, run.id)
    assert failed.to_dict() == resources.store.read_manifest(f"runs/{run.id}")


def test_what_runs_is_left_alone(begin: Begin, cli: CommandLine) -> None:
    """A run that goes on, and one of which the server knows nothing, stay as they are."""
    runs = [begin(None)]
    unknown = RunRef(id=new_id(), flow="train", model="mean", flow_run_id="0b5e6a52-4a9e-4a2f-8a44-9a6a4b2a4f00")
    runs.append(start(open_resources().database, unknown))
    ended = cli("runs", "settle", "--json").json
    assert ([], sorted(run.id for run in runs)) == (ended["settled"], sorted(ended["running"]))


def test_next_run_of_the_model_settles_the_last(begin: Begin, tmp_path: Path) -> None:
    """A model that runs again records how its killed run ended."""
    run = begin("CRASHED")
    mean = load_model(model("mean"))
    mean.train(mean.config(), str(write_tables(tmp_path)["training"]))
    assert "crashed" == get_run(open_resources().database, run.id).status


WORKS: dict[str, Callable[[Resources, RunFact], object]] = {
    "settle": lambda resources, run: record_end(resources, run, Crashed()),
    "tag": lambda resources, run: set_tags(resources, run.id, {"a": "b"}, by="ana"),
    "untag": lambda resources, run: remove_tags(resources, run.id, ["a"], by="ana"),
    "note": lambda resources, run: add_note(resources, run.id, "x", by="ana"),
    "config": lambda resources, run: record_config(
        resources, make_config(), NewEntry(origin="apply", author="ana", created_at=now())
    ),
    "bulk": lambda resources, run: list(tag(resources, [[run]], {"a": "b"}, by="ana")),
}


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_others_do_not_wait_for_a_silent_store(
    begin: Begin, tmp_path: Path, work: Callable[[Resources, RunFact], object]
) -> None:
    """While a store does not answer whoever is about to write a manifest, others write to the database."""
    run = begin("CRASHED")
    database = open_resources().database
    store = open_store(str(tmp_path / "store"))
    store.write_manifest("x", {})
    file = tmp_path / "store/format.json"
    content = file.read_bytes()
    file.unlink()
    os.mkfifo(file)  # who reads it waits until somebody has written to it
    others = open_database(f"{database.url}?timeout=1")
    resources = Resources(store=open_store(str(tmp_path / "store")), database=database)
    with ThreadPoolExecutor() as pool:
        doing = pool.submit(work, resources, run)
        silent = eventually(lambda: _open_for_writing(file), bool)
        try:
            start(others, RunRef(id=new_id(), flow="train", model="mean"))
        finally:
            os.write(silent, content)
            os.close(silent)
        doing.result()
    others.close()
    assert 2 == len(store.manifest_names())


def _open_for_writing(fifo: Path) -> int:
    """0 while nobody reads."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return 0


def test_nothing_to_settle_asks_no_server(home: Path, cli: CommandLine) -> None:
    """Without a run that is recorded as running no server is asked, and so none need be there."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        ended = cli("runs", "settle")
    assert (0, "0 settled, 0 running.\n") == (ended.code, ended.out)
