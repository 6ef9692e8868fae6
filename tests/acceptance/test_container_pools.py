"""The deployments for Docker and Kubernetes, taken by a real server whose pools have the workers' own templates."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import prefect
import pytest
from server_api import connect
from sites import run_program, script


def _template(kind: str, checkout: Path) -> dict[str, Any]:
    if kind == "kubernetes":
        ours: dict[str, Any] = json.loads((checkout / "deployments/kubernetes/base-job-template.json").read_text())
        return ours
    bundled = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    theirs: dict[str, Any] = json.loads(bundled.read_text())["prefect-docker"]["docker"][
        "default_base_job_configuration"
    ]
    return theirs


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_server_takes_the_deployments(server: str, checkout: Path, tmp_path: Path, kind: str) -> None:
    """All three are there with their job variables, which the server has compared with the template of the pool."""
    environment = os.environ | {"PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME": str(tmp_path)}
    pool = {"name": f"forecasts-{kind}", "type": kind, "base_job_template": _template(kind, checkout)}
    command = ["--no-prompt", "deploy", "--all", "--prefect-file", f"deployments/{kind}/prefect.yaml"]
    with connect(server) as api:
        api.post("/work_pools/", json=pool).raise_for_status()
        run_program([script("prefect"), *command], folder=checkout, environment=environment)
        names = {"train": "dengue-train", "retrain": "dengue-retrain", "predict": "dengue-predict"}
        made = [
            api.get(f"/deployments/name/{flow}/{name}-in-{kind}").raise_for_status().json()
            for name, flow in names.items()
        ]
        for deployment in made:
            api.delete(f"/deployments/{deployment['id']}").raise_for_status()
        api.delete(f"/work_pools/forecasts-{kind}").raise_for_status()
    assert [f"forecasts-{kind}"] * 3 == [deployment["work_pool_name"] for deployment in made]
    assert all("chapkit-flows" in deployment["job_variables"]["image"] for deployment in made)
    assert [1, 1, None] == [(deployment["global_concurrency_limit"] or {}).get("limit") for deployment in made]
    assert "dengue@latest" == made[2]["parameters"]["model"]
    assert {"$ref": {"block_document_slug": "dengue-config/default"}} == made[0]["parameters"]["config"]
