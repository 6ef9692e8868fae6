"""What lies in deployments/: variables that Prefect's workers know, entrypoints that load, no secrets."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import prefect
import pytest
import yaml
from prefect import Flow

from chapkit_flows import ChapkitFlowsSettings
from chapkit_flows.models.discovery import import_file

ROOT = Path(__file__).parents[2]
FILES = {"process": "prefect.yaml", "docker": "deployments/docker/prefect.yaml"}
FILES |= {"kubernetes": "deployments/kubernetes/prefect.yaml"}
ENTRIES = [
    (kind, entry["name"])
    for kind, file in FILES.items()
    for entry in yaml.safe_load((ROOT / file).read_text())["deployments"]
]


def _entry(kind: str, name: str) -> dict[str, Any]:
    entries = yaml.safe_load((ROOT / FILES[kind]).read_text())["deployments"]
    found: dict[str, Any] = next(entry for entry in entries if entry["name"] == name)
    return found


def _default_template(kind: str) -> dict[str, Any]:
    """The base job template that Prefect itself gives a new work pool."""
    file = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    packages = json.loads(file.read_text())
    package = "prefect" if kind == "process" else f"prefect-{kind}"
    template: dict[str, Any] = packages[package][kind]["default_base_job_configuration"]
    return template


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_job_variables_are_those_of_the_worker(kind: str, name: str) -> None:
    """Each job variable is one that the work pool's template has, with a value that fits it."""
    given = _entry(kind, name)["work_pool"].get("job_variables", {})
    variables = _default_template(kind)["variables"]
    assert set(given) <= set(variables["properties"])
    jsonschema.validate(given, variables)


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_entrypoint_is_a_flow_that_takes_the_parameters(kind: str, name: str) -> None:
    """Each entry names a flow, with parameters that it has; configs are referred to by slug only."""
    entry = _entry(kind, name)
    path, _, attribute = entry["entrypoint"].rpartition(":")
    if not path.endswith(".py"):
        pytest.skip("a flow of the package itself")
    flow = getattr(import_file(ROOT / path), attribute)
    assert isinstance(flow, Flow)
    assert set(entry["parameters"]) <= set(flow.parameters.properties)
    config = entry["parameters"].get("config")
    assert config is None or {"$ref": {"block_document_slug": "dengue-config/default"}} == config


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in ENTRIES if "train" in name])
def test_one_training_at_a_time(kind: str, name: str) -> None:
    """Each deployment that trains lets one run at a time through; the next waits."""
    assert {"limit": 1, "collision_strategy": "ENQUEUE"} == _entry(kind, name)["concurrency_limit"]


def test_kubernetes_template_is_the_default_with_the_secret() -> None:
    """The base job template differs from Prefect's own in the environment of the job and in its namespace only."""
    ours = json.loads((ROOT / "deployments/kubernetes/base-job-template.json").read_text())
    theirs = _default_template("kubernetes")
    manifest = ours["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]
    assert [{"secretRef": {"name": "chapkit-flows"}}] == manifest.pop("envFrom")
    theirs["variables"]["properties"]["namespace"]["default"] = "forecasts"
    assert theirs == ours


def _texts() -> Iterator[tuple[Path, str]]:
    for file in [*(ROOT / "deployments").rglob("*"), ROOT / "docs/deployments.md"]:
        if file.is_file() and file.suffix != ".pyc":
            yield file, file.read_text()


def test_settings_are_settings() -> None:
    """Each variable of this package that the material sets is a setting of it."""
    named = {name for _, text in _texts() for name in re.findall(r"PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_(\w+)", text)}
    assert named
    assert named <= {name.upper() for name in ChapkitFlowsSettings.model_fields}


def test_compose_names_what_the_runs_use() -> None:
    """The network, volume and image that the runs name are those that the compose file and the Dockerfile make."""
    compose = yaml.safe_load((ROOT / "deployments/docker/compose.yaml").read_text())
    variables = _entry("docker", "train-in-docker")["work_pool"]["job_variables"]
    assert variables["networks"] == [compose["networks"]["runs"]["name"]]
    assert [f"{compose['volumes']['data']['name']}:/data"] == variables["volumes"]
    dockerfile = (ROOT / "deployments/docker/Dockerfile").read_text()
    pool = _entry("docker", "train-in-docker")["work_pool"]["name"]
    assert f'"doctor", "--pool", "{pool}"' in dockerfile
    assert compose["services"]["worker"]["build"]["target"] in re.findall(r"^FROM .* AS (\w+)$", dockerfile, re.M)
    copied = [name for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.M) for name in line.split()]
    assert [] == [name for name in copied if not (ROOT / name).exists()]


def test_every_manifest_lies_in_the_namespace_of_the_pool() -> None:
    """The worker's manifests and the jobs share one namespace."""
    manifests = list(yaml.safe_load_all((ROOT / "deployments/kubernetes/worker.yaml").read_text()))
    spaces = {one["metadata"].get("namespace", one["metadata"]["name"]) for one in manifests}
    assert spaces == {_entry("kubernetes", "train-in-kubernetes")["work_pool"]["job_variables"]["namespace"]}


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("hadolint", ["deployments/docker/Dockerfile"]),
        ("check-jsonschema", ["--builtin-schema", "vendor.compose-spec", "deployments/docker/compose.yaml"]),
        ("kubernetes-validate", ["--strict", "deployments/kubernetes/worker.yaml"]),
    ],
)
def test_linters_find_nothing(program: str, arguments: list[str]) -> None:
    """The Dockerfile, the compose file and the manifests pass the linters of their kinds."""
    found = shutil.which(program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_automations_start_deployments_that_are_there() -> None:
    """Each automation that starts a deployment names one of prefect.yaml."""
    deployed = {
        f"{import_file(ROOT / file).__dict__[name].name}/{entry['name']}"
        for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
        for file, colon, name in [entry["entrypoint"].partition(":")]
        if colon
    } | {"chapkit-flows-settle/settle"}
    documents = [yaml.safe_load(file.read_text()) for file in (ROOT / "deployments/automations").glob("*.yaml")]
    named = {action["deployment"] for document in documents for action in document["actions"] if "deployment" in action}
    assert named
    assert set() == named - deployed
