"""The same rules, and the same findings, wherever a config is used."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from command_line import MODELS, CommandLine, model, write_tables
from server_api import connect

from chapkit_flows import load_model, open_resources
from chapkit_flows.configs.documents import read_documents
from chapkit_flows.errors import ValidationFailed
from chapkit_flows.lineage.query import get_run, list_runs
from chapkit_flows.refs import Diagnostic

RULE = {
    "code": "many_samples",
    "check": "samples <= 5",
    "when": 'label != "exempt"',
    "message": "samples is {samples}; use 5 or fewer.",
    "field": "samples",
}
FOUND = Diagnostic.error("many_samples", "samples is 6; use 5 or fewer.", "config.samples")
DOCUMENT = f"""\
block_type_slug: small-config
name: NAME
model: {MODELS}:mean
fields:
  samples: 6
rules:
  - code: many_samples
    check: samples <= 5
    when: label != "exempt"
    message: samples is {{samples}}; use 5 or fewer.
    field: samples
"""


@pytest.fixture
def name() -> str:
    return f"ruled-{uuid.uuid4().hex[:8]}"


def test_rule_stops_a_run(server: str, home: Path, tmp_path: Path) -> None:
    """A run with a config that breaks a rule ends before the model is called, with the finding."""
    mean = load_model(model("mean"))
    data = str(write_tables(tmp_path / "data")["training"])
    with pytest.raises(ValidationFailed) as caught:
        mean.train(mean.config(samples=6, validation_rules=[RULE]), data)
    assert (FOUND,) == caught.value.diagnostics
    (run,) = list_runs(open_resources().database)
    assert ("failed", True) == (run.status, FOUND.message in str(run.error))
    assert "completed" == mean.train(mean.config(samples=6, label="exempt", validation_rules=[RULE]), data).status


def test_validate_finds_the_same(server: str, home: Path, tmp_path: Path) -> None:
    """`validate` gives the finding that a run would stop on."""
    mean = load_model(model("mean"))
    data = str(write_tables(tmp_path / "data")["training"])
    result = mean.validate(mean.config(samples=6, validation_rules=[RULE]), data)
    assert (False, (FOUND,)) == (result.valid, result.diagnostics)


def test_prediction_is_checked_with_its_horizon(server: str, home: Path, tmp_path: Path) -> None:
    """A rule about the horizon is asked again when the horizon of a prediction is known."""
    mean, tables = load_model(model("mean")), write_tables(tmp_path / "data")
    near = {"code": "near", "check": "prediction_periods < 3", "message": "Too far.", "severity": "error"}
    config = mean.config(prediction_periods=2, validation_rules=[near])
    trained = mean.train(config, str(tables["training"]))
    with pytest.raises(ValidationFailed, match="near: Too far"):
        mean.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    result = mean.validate(None, None, trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    assert "near" in [found.code for found in result.diagnostics]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", ["plan", "apply"])
def test_apply_finds_the_same(
    server: str, home: Path, tmp_path: Path, cli: CommandLine, name: str, command: str
) -> None:
    """A document that breaks its own rule is not applied; the finding is that of a run, with file and line."""
    file = tmp_path / "config.yaml"
    file.write_text(DOCUMENT.replace("NAME", name))
    ended = cli("blocks", command, file, "--json")
    place = f"{file}:1: small-config/{name}: "
    assert 2 == ended.code
    assert [asdict(FOUND) | {"message": place + FOUND.message}] == ended.json["error"]["diagnostics"]
    with connect(server) as api:
        assert 404 == api.get(f"/block_types/slug/small-config/block_documents/name/{name}").status_code


def test_change_for_one_run_is_checked(server: str, home: Path, tmp_path: Path, cli: CommandLine, name: str) -> None:
    """A config that `--set` changes is still checked by the rules it was saved with."""
    file = tmp_path / "config.yaml"
    file.write_text(DOCUMENT.replace("NAME", name).replace("samples: 6", "samples: 5"))
    assert 0 == cli("blocks", "apply", file).code
    data = write_tables(tmp_path / "data")["training"]
    ended = cli("train", model("mean"), "--data", data, "--config", name, "--set", "samples=6", "--json")
    assert [asdict(FOUND)] == ended.json["error"]["diagnostics"]


@pytest.mark.usefixtures("home")
def test_rule_that_was_edited_is_pulled(server: str, tmp_path: Path, cli: CommandLine, name: str) -> None:
    """A rule that was edited on the server comes back to the rules of its document; a new document has its rules."""
    file = tmp_path / "config.yaml"
    file.write_text(DOCUMENT.replace("NAME", name).replace("samples: 6", "samples: 5"))
    assert 0 == cli("blocks", "apply", file).code
    config = load_model(model("mean")).config
    edited = config(samples=5, validation_rules=[RULE | {"check": "samples <= 7"}])
    edited.save(name, overwrite=True)
    edited.save(f"{name}-new")
    assert f"drifted    small-config/{name}" in cli("blocks", "plan", file).out
    cli("blocks", "pull", file, "--new")
    found = [one for one in read_documents(file) if one.slug.startswith(f"small-config/{name}")]
    assert ["samples <= 7"] * 2 == [one.fields["validation_rules"][0]["check"] for one in found]
    assert 2 <= file.read_text().count("rules:\n")
    assert "validation_rules" not in file.read_text()


def test_run_that_the_api_starts_is_checked(server: str, home: Path, tmp_path: Path, name: str) -> None:
    """A run that names a saved config, as the run form of the UI does, stops on the rule saved with it."""
    mean = load_model(model("mean"))
    mean.config(samples=6, validation_rules=[RULE]).save(name)
    deployment = mean.train.to_deployment(name=name)
    data = str(write_tables(tmp_path / "data")["training"])
    reference = {"$ref": {"block_document_slug": f"small-config/{name}"}}
    with connect(server) as api:
        parameters: dict[str, Any] = {"config": reference, "data": data}
        created = api.post(f"/deployments/{deployment.apply()}/create_flow_run", json={"parameters": parameters})
        flow_run_id = created.raise_for_status().json()["id"]
        command = [sys.executable, "-m", "prefect", "flow-run", "execute", flow_run_id]
        subprocess.run(command, env=os.environ, capture_output=True, check=False, timeout=120)
        state = api.get(f"/flow_runs/{flow_run_id}").json()["state"]
    run = get_run(open_resources().database, flow_run_id)
    assert ("FAILED", "failed", name) == (state["type"], run.status, run.config and run.config.name)
    assert f"many_samples: {FOUND.message}" in str(run.error)
