"""A model that `chapkit-flows deploy` has deployed, retrained by a worker with nobody there to look."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import write_tables
from server_api import connect, eventually, stop
from sites import Site, run_program, script

from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_run, latest_training

MODEL = '''
import time
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class UnattendedConfig(ModelConfig):
    """Settings of a model that nobody looks at."""
    seconds: float = 0.0

def on_train(config, data, geo=None):
    time.sleep(config.seconds)
    return float(data["disease_cases"].mean())

def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(sample_0=model)

unattended = Model(name="unattended", config=UnattendedConfig, runner=FunctionalModelRunner(on_train, on_predict))
'''


@dataclass(frozen=True, kw_only=True)
class Unattended:
    """A site whose worker runs the model of this file."""

    site: Site
    tables: dict[str, Path]

    def run(self, flow: str, **parameters: Any) -> tuple[dict[str, Any], RunFact]:
        """Have a deployment run to its end; its state, and what is recorded of it."""
        return self.wait(self.site.create_run(f"unattended-{flow}/unattended-{flow}", parameters))

    def wait(self, flow_run_id: str) -> tuple[dict[str, Any], RunFact]:
        """Wait for the end of a run."""
        return self.site.wait_for(flow_run_id), get_run(self.site.resources.database, flow_run_id)

    def model_in_use(self) -> str:
        """The id of the newest trained model."""
        run = latest_training(self.site.resources.database, "unattended")
        assert run is not None
        return run.output("model").id


@pytest.fixture(scope="module")
def unattended(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unattended]:
    folder = tmp_path_factory.mktemp("unattended")
    (folder / "my_model.py").write_text(MODEL)
    tables = write_tables(folder / "data")
    pool = f"unattended-{uuid.uuid4().hex[:8]}"
    environment = os.environ | {
        "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME": str(folder / "home"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }

    def run(*arguments: str) -> str:
        return run_program([script(arguments[0]), *arguments[1:]], folder=folder, environment=environment)

    run("prefect", "work-pool", "create", pool, "--type", "process")
    deploy = ("chapkit-flows", "deploy", "my_model.py:unattended", "--pool", pool, "--apply", "--schedule", "0 6 * * 1")
    printed = run(*deploy, "--data", "data/training.csv")
    assert f"prefect worker start --pool {pool}" in printed
    deploy = deploy[:-2]
    printed += run(*deploy, "--flow", "train", "--data", "data/training.csv")
    printed += run(*deploy, "--flow", "predict", "--historic", "data/historic.csv", "--future", "data/future.csv")
    with (folder / "worker.log").open("wb") as sink, connect(server) as api:
        worker = subprocess.Popen(
            [script("prefect"), "worker", "start", "--pool", pool],
            cwd=folder,
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
        site = Site(
            api=api, folder=folder, home=folder / "home", environment=environment, deployments=(printed, printed)
        )
        try:
            yield Unattended(site=site, tables=tables)
        finally:
            stop(worker)


def test_retrains_unattended(unattended: Unattended) -> None:
    """Runs train on what is new and skip what is not; after one that fails the model before it stays in use."""
    training = unattended.tables["training"]
    good = training.read_text()
    state, first = unattended.run("retrain")
    assert ("Completed", "retrain") == (state["name"], first.flow)

    state, skipped = unattended.run("retrain")
    assert ("COMPLETED", "NothingNew") == (state["type"], state["name"])
    assert first.output("model").id in state["message"]
    assert ("completed", ()) == (skipped.status, skipped.outputs)
    assert first.output("model").id == unattended.model_in_use()

    training.write_text(good + "2016-01,PLACE_1,4,10.5\n".replace("PLACE_1", good.splitlines()[1].split(",")[1]))
    state, third = unattended.run("retrain")
    assert ("Completed", third.output("model").id) == (state["name"], unattended.model_in_use())

    training.write_text(good.replace("disease_cases", "something_else"))
    state, failed = unattended.run("retrain")
    assert ("FAILED", "failed", ()) == (state["type"], failed.status, failed.outputs)
    _, predicted = unattended.run("predict")
    assert "completed" == predicted.status
    assert third.output("model").id == next(e.artifact.id for e in predicted.inputs if e.role == "model")
    assert "unattended@latest" == predicted.parameters["model"]

    training.write_text(good)
    state, fifth = unattended.run("retrain")
    assert ("Completed", fifth.output("model").id) == (state["name"], unattended.model_in_use())
    assert first.inputs[0].artifact.id == fifth.inputs[0].artifact.id


def _start_two(unattended: Unattended, seconds: float) -> tuple[str, str]:
    """Start a training that takes so long, and meanwhile, by another deployment, a second one."""
    site, config = unattended.site, {"config": {"seconds": seconds}}
    first = site.create_run("unattended-train/unattended-train", config)
    eventually(lambda: site.read(f"/flow_runs/{first}")["state_name"], "Running".__eq__)
    second = site.create_run("unattended-retrain/unattended-retrain", config if seconds < 60 else {})
    waits = eventually(lambda: site.read(f"/flow_runs/{second}")["state_name"], "AwaitingConcurrencySlot".__eq__)
    assert ("AwaitingConcurrencySlot", "Running") == (waits, site.read(f"/flow_runs/{first}")["state_name"])
    return first, second


def test_one_training_at_a_time(unattended: Unattended) -> None:
    """Of two deployments of one model that are started at once the second waits, and then finds nothing new."""
    ended = [unattended.wait(one) for one in _start_two(unattended, 8.0)]
    assert ["Completed", "NothingNew"] == [state["name"] for state, _ in ended]
    (_, first), (_, second) = ended
    assert isinstance(first.finished_at, datetime)
    assert first.metrics["fit_seconds"] >= 8.0
    assert first.finished_at <= second.started_at


def test_killed_training_lets_the_next_through(unattended: Unattended) -> None:
    """A training whose process is killed frees the limit of its model, and the one that waits for it runs."""
    first, second = _start_two(unattended, 600.0)
    pid = unattended.site.read(f"/flow_runs/{first}")["infrastructure_pid"].rpartition(":")[2]
    os.kill(int(pid), signal.SIGKILL)
    (crashed, _), (ended, run) = (unattended.wait(one) for one in (first, second))
    assert ("CRASHED", "COMPLETED", "completed") == (crashed["type"], ended["type"], run.status)
