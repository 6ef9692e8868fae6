"""Trainings and predictions, real flow runs, that are killed at every step.

Of the other works that must survive a kill, `test_killed_store`, `test_killed_upkeep` and
`tests/lineage/test_processes.py` kill: put, tree, delete, undelete, gc, backup, restore, rebuild, migrate.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flow_kill_points as points
import pytest
from command_line import model, write_tables
from server_api import eventually

from chapkit_flows import Resources, load_model, open_resources
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import get_run, list_artifacts, list_runs
from chapkit_flows.upkeep.integrity import Scope, check
from chapkit_flows.upkeep.recovery import rebuild

WORKS = ("train", "predict")
INPUTS = {"train": {"data"}, "predict": {"model", "historic", "future"}}


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What a driver of killed runs left, and a run of the same work that nobody killed.

    Attributes:
        endings: The exit code at each point.
        trained: The model that predictions start from.
    """

    work: str
    folder: Path
    endings: dict[str, int]
    trained: str | None
    reference: RunFact


def run_here(work: str, home: Path, tables: Path, trained: str | None) -> RunFact:
    """The same work in this process, to its end."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(points.HOME, str(home))
        result = points.run_flow(work, load_model(model(points.MODEL)), tables, trained)
        return get_run(open_resources().database, result.run_id)


def open_home(home: Path) -> Resources:
    return Resources(store=open_store(str(home / "artifacts")), database=open_database(f"sqlite:///{home}/lineage.db"))


@pytest.fixture(scope="module", params=WORKS)
def killed(request: pytest.FixtureRequest, server: str, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    work, folder = request.param, tmp_path_factory.mktemp(request.param)
    write_tables(folder / "tables")
    trained = None
    open_home(folder / "template").database.close()
    shutil.copyfile(folder / "template" / "lineage.db", folder / "template" / "empty.db")
    if work == "predict":
        trained = run_here("train", folder / "template", folder / "tables", None).output("model").id
        (folder / "template" / "trained").write_text(trained)
    done = subprocess.run([sys.executable, points.__file__, work, folder], capture_output=True, text=True, timeout=500)
    assert 0 == done.returncode, done.stderr
    endings = dict(json.loads(done.stdout.splitlines()[-1]))
    reference = Path(shutil.copytree(folder / "template", folder / "reference"))
    return Killed(
        work=work,
        folder=folder,
        endings=endings,
        trained=trained,
        reference=run_here(work, reference, folder / "tables", trained),
    )


def contents(edges: Any) -> dict[str, str]:
    return {edge.role: edge.artifact.digest for edge in edges}


def faults(resources: Resources) -> list[str]:
    """What `fsck --all` says."""
    found = check(resources, Scope(read_bytes=True))
    return [one.code for checked in found for one in checked.findings]


def test_every_point_is_reached(killed: Killed) -> None:
    """A run is killed at each point of the list."""
    assert {-signal.SIGKILL} == set(killed.endings.values())
    assert sorted(map(str, points.points_of(killed.work))) == sorted(killed.endings)


def test_rerun_completes(killed: Killed) -> None:
    """Wherever a run died, fsck is clean, the run is running or completed, and a rerun makes the same."""
    for point in killed.endings:
        home = killed.folder / point
        resources = open_home(home)
        assert [] == faults(resources), point
        before = [run for run in list_runs(resources.database) if run.flow == killed.work]
        assert_dead_run(point, before, killed)
        rerun = run_here(killed.work, home, killed.folder / "tables", killed.trained)
        assert "completed" == rerun.status
        assert contents(killed.reference.inputs) == contents(rerun.inputs), point
        assert contents(killed.reference.outputs) == contents(rerun.outputs), point
        assert [] == faults(resources), point
        assert_nothing_twice(point, resources, killed)
        assert_can_be_rebuilt(point, resources, home)
        resources.database.close()


def assert_dead_run(point: str, runs: list[RunFact], killed: Killed) -> None:
    """A run is all there or has only begun; before it has begun there is nothing."""
    if point.startswith("begin") and "before" in point:
        assert [] == runs, point
        return
    (run,) = runs
    if "after-finish" in point or point.startswith("publish"):
        assert ("completed", contents(killed.reference.outputs)) == (run.status, contents(run.outputs)), point
        assert INPUTS[killed.work] == set(contents(run.inputs)), point
    else:
        assert ("running", None, (), (), {}) == (run.status, run.finished_at, run.inputs, run.outputs, run.metrics)


def assert_nothing_twice(point: str, resources: Resources, killed: Killed) -> None:
    """No dataset is recorded twice, each run has its outputs once, and each arrow of the graph has two ends."""
    datasets = [artifact.digest for artifact in list_artifacts(resources.database, kind="dataset")]
    assert len(set(datasets)) == len(datasets), point
    for run in list_runs(resources.database):
        roles = [edge.role for edge in run.outputs]
        assert len(set(roles)) == len(roles), point
        graph = lineage(resources.database, run.id)
        assert {end for edge in graph.edges for end in (edge.source, edge.target)} <= {node.id for node in graph.nodes}


def assert_can_be_rebuilt(point: str, resources: Resources, home: Path) -> None:
    """The manifests give back every completed run."""
    shutil.copyfile(home.parent / "template" / "empty.db", home / "rebuilt.db")
    other = Resources(store=resources.store, database=open_database(f"sqlite:///{home}/rebuilt.db"))
    assert () == rebuild(other).findings, point
    for run in list_runs(resources.database, status="completed"):
        back = get_run(other.database, run.id)
        assert (run.config, run.code, run.outputs) == (back.config, back.code, back.outputs), point
        assert contents(run.inputs) == contents(back.inputs), point
    other.database.close()


def is_gone(process: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    try:
        return "Z" == Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True


SHELL = """
import sys
from chapkit_flows import load_model
model = load_model(sys.argv[1])
if sys.argv[2] == "train":
    print(model.train(model.config(), sys.argv[3]).artifact_id)
else:
    model.predict(*sys.argv[3:])
"""


@pytest.mark.parametrize("work", ["train", "predict"])
def test_script_does_not_outlive_its_run(server: str, home: Path, tmp_path: Path, work: str) -> None:
    """When a flow is killed while its script runs, the script, its child and its folder go; a rerun completes."""
    tables = write_tables(tmp_path / "tables")
    arguments = [str(tables["training"])]

    def run(fault: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SHELL, model("shell"), work, *arguments]
        environment = os.environ | {"FAULT": fault, "FAMILY_FILE": str(tmp_path / "family")}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)

    if work == "predict":
        shell = load_model(model("shell"))
        trained = shell.train(shell.config(), *arguments)
        arguments = [trained.artifact_id, str(tables["historic"]), str(tables["future"])]
    done = run(f"kills its flow in {work}")
    assert -signal.SIGKILL == done.returncode, done.stderr
    script, child, folder = (tmp_path / "family").read_text().split()
    left = eventually(
        lambda: (is_gone(int(script)), is_gone(int(child)), Path(folder).exists()), (True, True, False).__eq__
    )
    assert (True, True, False) == left

    resources = open_resources()
    dead = list_runs(resources.database, status="running")
    assert [(work, (), ())] == [(run.flow, run.inputs, run.outputs) for run in dead]
    assert [] == faults(resources)
    done = run()
    assert 0 == done.returncode, done.stderr
    assert "completed" == list_runs(resources.database, limit=1)[0].status
    assert [] == faults(resources)
