"""PostgreSQL behind Prefect and behind lineage, S3 behind the store, and two workers that share nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import write_tables
from event_site import wait_until_healthy
from postgresql_program import create_database, find_postgres, postgresql_program
from prefect.settings import PREFECT_API_URL, temporary_settings
from server_api import connect, stop
from servers import free_port, s3_server
from sites import Site, run_program, script

from chapkit_flows import ChapkitFlowsSettings, Resources, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.cli.main import EMBEDDED_DEFAULTS, main
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import get_run
from chapkit_flows.lineage.registry import find_version

BUCKET, POOL = "site", "machines"
PLAN = {"periods": 2, "splits": 3}
COUNTS = ("folds", "reused_folds", "failed_folds")
SETTINGS = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_"
MODEL = '''
from pathlib import Path

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig


class RoamingConfig(ModelConfig):
    """Settings of a model that is trained here and predicts there."""

    shift: float = 0.0


def on_train(config, data, geo=None):
    means = data.groupby("location")["disease_cases"].mean() + config.shift
    return {"means": means.to_dict(), "home": str(Path.home()), "folder": str(Path.cwd())}


def on_predict(config, model, historic, future, geo=None):
    samples = {f"sample_{n}": future["location"].map(model["means"]) + n for n in range(5)}
    return future[["time_period", "location"]].assign(**samples)


roaming = Model(name="roaming", config=RoamingConfig, runner=FunctionalModelRunner(on_train, on_predict))
'''
# As it is between machines: each run takes the project from where all reach it, into a folder of its own.
PREFECT_YAML = """\
pull:
  - prefect.deployments.steps.git_clone:
      repository: {repository}
"""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a worker has for itself, all below one folder: its home, Prefect's home, and where its runs work."""

    folder: Path

    def environment(self, shared: Mapping[str, str]) -> dict[str, str]:
        """The variables of its programs."""
        own = {"HOME": "home", "PREFECT_HOME": "prefect", "TMPDIR": "tmp", f"{SETTINGS}HOME": "home/.chapkit-flows"}
        for below in ("home", "tmp"):
            (self.folder / below).mkdir(parents=True, exist_ok=True)
        return {**os.environ, **shared, **{name: str(self.folder / below) for name, below in own.items()}}


@dataclass(frozen=True, kw_only=True)
class Cluster(Site):
    """An installation whose runs are sent to one machine or to the other."""

    machines: Mapping[str, Machine]
    settings: ChapkitFlowsSettings

    @property
    def resources(self) -> Resources:
        """The store and the database that both machines reach."""
        return open_resources(self.settings)

    def run(self, flow: str, machine: str, **parameters: Any) -> RunFact:
        """Have a run done by one machine while the folder of the other one is away."""
        found = self.read(f"/deployments/name/roaming-{flow}/roaming-{flow}")["id"]
        body = {"parameters": parameters, "work_queue_name": machine}
        (other,) = (one.folder for name, one in self.machines.items() if name != machine)
        away = other.rename(other.with_name(f"{other.name}-away"))
        try:
            made = self.api.post(f"/deployments/{found}/create_flow_run", json=body).raise_for_status().json()
            state = self.wait_for(made["id"])
        finally:
            away.rename(other)
        assert "COMPLETED" == state["type"], self.logs(made["id"])
        return get_run(self.resources.database, made["id"])

    def made_on(self, run: RunFact) -> tuple[Path, Path]:
        """The home and the folder in which a model was trained, as its own code saw them."""
        roaming = load_model(f"{self.folder}/my_model.py:roaming")
        trained = load(self.resources.store, run.output("model"), namespace=roaming.definition.namespace)
        return Path(trained["home"]), Path(trained["folder"])


@contextmanager
def prefect_server(database: str, folder: Path) -> Iterator[httpx.Client]:
    """A Prefect server on a database; gives a client of it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database, "PREFECT_HOME": str(folder), "PREFECT_API_URL": url}
    own |= {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false", "PREFECT_UI_ENABLED": "false"}
    with (folder / "server.log").open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | own,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        with connect(url) as api:
            wait_until_healthy(api, process)
            yield api
    finally:
        stop(process)


def make_project(folder: Path) -> Path:
    """A git repository with the model."""
    folder.mkdir()
    (folder / "my_model.py").write_text(MODEL)
    (folder / "prefect.yaml").write_text(PREFECT_YAML.format(repository=folder))
    author = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    for command in (["init", "--quiet"], ["add", "my_model.py"], [*author, "commit", "--quiet", "-m", "A model"]):
        run_program(["git", *command], folder=folder, environment=os.environ)
    return folder


def deploy(project: Path, data: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """Deploy the four flows of the model."""
    inputs = {name: ["--data", data["training"]] for name in ("train", "backtest", "retrain")}
    inputs["predict"] = ["--historic", data["historic"], "--future", data["future"]]
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        patch.chdir(project)
        for name, value in EMBEDDED_DEFAULTS.items():
            patch.setenv(name, value)  # the command sets them: put back what was there
        for flow, given in inputs.items():
            assert 0 == main(["deploy", "my_model.py:roaming", "--flow", flow, "--pool", POOL, *given])
    run_program([script("prefect"), "--no-prompt", "deploy", "--all"], folder=project, environment=environment)


@contextmanager
def worker(name: str, machine: Machine, shared: Mapping[str, str]) -> Iterator[None]:
    """A worker that does the runs of one queue of the pool."""
    log = machine.folder.with_name(f"{name}.log")
    environment = machine.environment(shared)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [script("prefect"), "worker", "start", "--pool", POOL, "--work-queue", name],
            cwd=machine.folder,
            env=environment,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        stop(process)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tables(tmp_path_factory.mktemp("tables"), periods=24)


@pytest.fixture(scope="module")
def cluster(tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two machines, and the model deployed for both."""
    s3fs = pytest.importorskip("s3fs", reason="needs the extra s3")
    pytest.importorskip("psycopg", reason="needs the extra postgresql")
    programs = find_postgres()
    if programs is None:
        pytest.skip("there is no PostgreSQL with pg_trgm (apt-get install postgresql)")
    folder = tmp_path_factory.mktemp("machines")
    with ExitStack() as stack:
        # Not below pytest's folder, which is closed to the other user that the server runs as under root.
        base = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        server = stack.enter_context(postgresql_program(programs, Path(base)))
        options = stack.enter_context(s3_server(BUCKET))
        facts, store = create_database(server, "lineage"), f"s3://{BUCKET}/artifacts"
        data = {name: f"s3://{BUCKET}/data/{file.name}" for name, file in tables.items()}
        for name, file in tables.items():
            s3fs.S3FileSystem(**options).put_file(str(file), data[name])
        kept = create_database(server, "prefect").replace("postgresql://", "postgresql+asyncpg://")
        (folder / "server").mkdir()
        api = stack.enter_context(prefect_server(kept, folder / "server"))
        shared = {
            "PREFECT_API_URL": str(api.base_url).rstrip("/"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            f"{SETTINGS}DATABASE_URL": facts,
            f"{SETTINGS}STORAGE_URL": store,
            f"{SETTINGS}STORAGE_OPTIONS": json.dumps(options),
            "FSSPEC_S3": json.dumps(options),  # the tables lie in the bucket too
        }
        api.post("/work_pools/", json={"name": POOL, "type": "process"}).raise_for_status()
        machines = {name: Machine(folder=folder / name) for name in ("north", "south")}
        for name, machine in machines.items():
            stack.enter_context(worker(name, machine, shared))
        project, desk = make_project(folder / "project"), Machine(folder=folder / "desk").environment(shared)
        deploy(project, data, desk)
        yield Cluster(
            api=api,
            folder=project,
            home=folder,
            environment=desk,
            deployments=("", ""),
            machines=machines,
            settings=ChapkitFlowsSettings(database_url=facts, storage_url=store, storage_options=options),
        )


def test_what_one_machine_made_the_other_uses(cluster: Cluster, tables: dict[str, Path]) -> None:
    """Trained and promoted on one, tried and predicted on the other, which needs no file of the first."""
    trained = cluster.run("train", "north")
    home, folder = cluster.made_on(trained)
    north = cluster.machines["north"].folder
    assert north / "home" == home
    assert folder.is_relative_to(north)

    tried = cluster.run("backtest", "south", plan=PLAN)
    assert (3.0, 0.0, 0.0) == tuple(tried.metrics[name] for name in COUNTS)

    rules = [{"within": {"metric": "coverage_90", "low": 0.0, "high": 1.0}}]
    retrained = cluster.run("retrain", "north", force=True, gate={"rules": rules, "plan": PLAN})
    assert (3.0, 3.0, 0.0) == tuple(retrained.metrics[name] for name in COUNTS)
    version = find_version(cluster.resources.database, "roaming", "champion")
    assert retrained.output("model").id == version.artifact_id

    forecast = cluster.run("predict", "south", model="roaming@champion")
    graph = lineage(cluster.resources.database, forecast.output("prediction").id, up=True, down=False)
    assert {forecast.id, retrained.id} == {node.id for node in graph.nodes if node.type == "run"}
    digest = f"sha256:{hashlib.sha256(tables['training'].read_bytes()).hexdigest()}"
    assert digest in {node.digest for node in graph.nodes}
    assert trained.code is not None
    commit = trained.code.git_commit
    assert [commit] * 2 == [run.code and run.code.git_commit for run in (retrained, forecast)]
    assert not any(list(one.folder.rglob("*.db")) for one in cluster.machines.values())
