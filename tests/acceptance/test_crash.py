"""A training that is killed after its bytes are stored and before the facts are recorded."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sites import ROOT

from chapkit_flows import Resources, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.artifacts.store import Store
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import list_artifacts, list_runs
from chapkit_flows.models.contract import ModelContract

DATA = ROOT / "examples/dengue_forecast/data/training.csv"

# The fault: the process dies where it would record the finished run.
KILLED = """
import os, signal, sys
from chapkit_flows import load_model
from chapkit_flows.flows import session

session.finish = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
model = load_model(sys.argv[1])
model.train(model.config(), sys.argv[2])
"""


@pytest.fixture(params=["dengue_forecast", "shell_model"])
def model_file(request: pytest.FixtureRequest) -> Path:
    """A model whose trained form is one object, and one whose trained form is a folder."""
    return ROOT / "examples" / request.param / "model.py"


@pytest.fixture
def killed(server: str, home: Path, model_file: Path) -> Resources:
    """The store and the database as a killed training left them."""
    done = subprocess.run([sys.executable, "-c", KILLED, model_file, DATA], capture_output=True, text=True, timeout=300)
    assert -signal.SIGKILL == done.returncode, done.stderr
    return open_resources()


def _objects(store: Store) -> set[str]:
    keys = store._backend.keys("objects")
    return {"sha256:" + "".join(key.split("/")[-2:]) for key in keys}


def _assert_nothing_dangles(resources: Resources, model: ModelContract, folder: Path) -> None:
    """Every row's bytes are there, whole and readable, and every arrow of the graph has two ends."""
    for artifact in list_artifacts(resources.database):
        if artifact.codec == "raw":
            with resources.store.open(artifact.digest) as file:
                assert artifact.size == len(file.read())
        else:
            load(resources.store, artifact, folder=folder / artifact.id, namespace=model.definition.namespace)
    for run in list_runs(resources.database):
        graph = lineage(resources.database, run.id)
        assert {end for edge in graph.edges for end in (edge.source, edge.target)} <= {node.id for node in graph.nodes}


def test_rerun_after_kill(killed: Resources, model_file: Path, tmp_path: Path) -> None:
    """A killed training leaves orphans only; a rerun completes, takes up what was stored, and nothing dangles."""
    (run,) = list_runs(killed.database)
    assert ("running", None, (), ()) == (run.status, run.finished_at, run.inputs, run.outputs)
    assert [] == list_artifacts(killed.database)
    orphans = _objects(killed.store)
    assert len(orphans) >= 2, "data and model were stored before the end"
    for digest in orphans:
        with killed.store.open(digest):
            pass  # its bytes are whole: opening checks them

    model = load_model(model_file)
    result = model.train(model.config(), str(DATA))

    statuses = {run.id: run.status for run in list_runs(killed.database)}
    assert "completed" == statuses.pop(result.run_id)
    assert {run.id: "running"} == statuses
    _assert_nothing_dangles(killed, model, tmp_path)
    (data,) = list_artifacts(killed.database, kind="dataset")
    assert data.digest in orphans
    (trained,) = list_artifacts(killed.database, kind="training_workspace")
    assert result.artifact_id == trained.id
