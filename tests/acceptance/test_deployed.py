"""The example model, deployed with `prefect deploy --all` and run by a worker through the REST API."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_api import eventually, stop
from sites import Site, script

from chapkit_flows.artifacts.codecs import load
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.graph import lineage
from chapkit_flows.lineage.query import get_artifact, get_run

TRAIN, PREDICT, RETRAIN = "dengue-train/train", "dengue-predict/predict", "dengue-retrain/retrain"
BACKTEST = "dengue-backtest/backtest"
SAVED = "dengue-config/long-memory"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A run that the worker has ended."""

    flow_run_id: str
    state: dict[str, Any]
    fact: RunFact


def _finish(site: Site, flow_run_id: str) -> Finished:
    state = site.wait_for(flow_run_id)
    assert state["type"] == "COMPLETED", site.logs(flow_run_id)
    return Finished(flow_run_id=flow_run_id, state=state, fact=get_run(site.resources.database, flow_run_id))


@pytest.fixture(scope="module")
def trained(site: Site) -> dict[str, Finished]:
    """Two trainings with the saved config: one names it by slug, one by id as the run form of the UI does."""
    slug, name = SAVED.split("/")
    document = site.read(f"/block_types/slug/{slug}/block_documents/name/{name}")
    references = {"slug": {"block_document_slug": SAVED}, "id": {"block_document_id": document["id"]}}
    started = {key: site.create_run(TRAIN, {"config": {"$ref": value}}) for key, value in references.items()}
    return {key: _finish(site, flow_run_id) for key, flow_run_id in started.items()}


@pytest.fixture(scope="module")
def predicted(site: Site, trained: dict[str, Finished]) -> Finished:
    """A prediction with the first of the trained models."""
    return _finish(site, site.create_run(PREDICT, {"model": trained["slug"].fact.output("model").id}))


@pytest.mark.parametrize("name", [TRAIN, PREDICT, RETRAIN, BACKTEST])
def test_deployed_without_questions(site: Site, name: str) -> None:
    """Each deployment is there, and one on the work pool."""
    assert "forecasts" == site.read(f"/deployments/name/{name}")["work_pool_name"]


def test_deploying_again_adds_nothing(site: Site) -> None:
    """The second `prefect deploy --all` succeeds like the first and leaves four deployments and one schedule."""
    found = site.api.post("/deployments/filter", json={}).raise_for_status().json()
    ours = {deployment["name"]: deployment for deployment in found if "dengue" in deployment["tags"]}
    assert {"train", "predict", "retrain", "backtest"} == set(ours)
    schedules = {name: deployment["schedules"] for name, deployment in ours.items()}
    assert [] == schedules["train"] == schedules["predict"] == schedules["backtest"]
    (weekly,) = schedules["retrain"]
    assert ("0 6 * * 1", "UTC", False) == (
        weekly["schedule"]["cron"],
        weekly["schedule"]["timezone"],
        weekly["active"],
    )
    assert all("train" in printed and "predict" in printed for printed in site.deployments)


@pytest.mark.parametrize("name", [TRAIN, RETRAIN, BACKTEST])
def test_run_form_offers_saved_configs(site: Site, name: str) -> None:
    """The config parameter is typed as the model's own block type, from which the UI makes its drop-down."""
    schema = site.read(f"/deployments/name/{name}")["parameter_openapi_schema"]
    config = schema["properties"]["config"]
    (pointer,) = [item["$ref"] for item in [config, *config.get("allOf", [])] if "$ref" in item]
    definition = schema["definitions"][pointer.removeprefix("#/definitions/")]
    assert "dengue-config" == definition["block_type_slug"]
    assert {"n_lags", "harmonics", "prediction_periods"} <= set(definition["properties"])


@pytest.mark.parametrize("reference", ["slug", "id"])
def test_training_uses_the_saved_config(trained: dict[str, Finished], reference: str) -> None:
    """A run that refers to a saved config records that config's name and values."""
    fact = trained[reference].fact
    assert ("completed", "train", "dengue") == (fact.status, fact.flow, fact.model)
    assert fact.config is not None
    assert ("dengue-config", "long-memory") == (fact.config.block_type, fact.config.name)
    assert (6, 500) == (fact.config.content["n_lags"], fact.config.content["n_samples"])


def test_equal_configs_are_one_version(trained: dict[str, Finished]) -> None:
    """However a run refers to a saved config, it is the same config version, and equal inputs are stored once."""
    one, other = trained["slug"].fact, trained["id"].fact
    assert one.config == other.config
    assert one.inputs[0].artifact.digest == other.inputs[0].artifact.digest
    assert one.inputs[0].artifact.id == other.inputs[0].artifact.id


def test_training_records_its_data(site: Site, trained: dict[str, Finished]) -> None:
    """The rows of a run name the digest of the very file that the deployment points to."""
    content = (site.folder / "examples/dengue_forecast/data/training.csv").read_bytes()
    (data,) = [edge.artifact for edge in trained["slug"].fact.inputs if edge.role == "data"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == data.digest
    with site.resources.store.open(data.digest) as stored:
        assert content == stored.read()


def test_training_shows_its_summary(site: Site, trained: dict[str, Finished]) -> None:
    """The page of a run shows config, fingerprint of the data and the id to predict with."""
    run = trained["slug"]
    (shown,) = site.artifacts(run.flow_run_id)
    assert ("markdown", "dengue-train") == (shown["type"], shown["key"])
    assert run.fact.config is not None
    for expected in (
        "long-memory",
        run.fact.config.digest.removeprefix("sha256:")[:12],
        run.fact.inputs[0].artifact.digest,
        run.fact.output("model").id,
        'class="language-mermaid"',
    ):
        assert expected in shown["data"]


def test_run_has_a_name_for_people(site: Site, trained: dict[str, Finished]) -> None:
    """The name of a run says model, config and data."""
    name = site.read(f"/flow_runs/{trained['slug'].flow_run_id}")["name"]
    assert "dengue · long-memory · training.csv" == name


def test_tasks_have_names_for_people(site: Site, trained: dict[str, Finished]) -> None:
    """The steps of a training are tasks whose names a user understands."""
    wanted = {"task_runs": {"flow_run_id": {"any_": [trained["slug"].flow_run_id]}}}
    steps = {"load data", "validate", "fit dengue", "store the model", "record the run", "publish the summary"}

    def names() -> set[str]:
        found = site.api.post("/task_runs/filter", json=wanted).raise_for_status().json()
        return {re.sub(r"-[0-9a-f]{3}$", "", task["name"]) for task in found}

    assert steps == eventually(names, steps.__eq__)


def test_prediction_leads_back_to_the_file(site: Site, trained: dict[str, Finished], predicted: Finished) -> None:
    """Lineage leads from a prediction through the training to the digest of its CSV file."""
    graph = lineage(site.resources.database, predicted.fact.output("prediction").id, up=True, down=False)
    content = (site.folder / "examples/dengue_forecast/data/training.csv").read_bytes()
    nodes = {node.id: node for node in graph.nodes}
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" in {node.digest for node in graph.nodes}
    assert {predicted.fact.id, trained["slug"].fact.id} == {key for key, node in nodes.items() if node.type == "run"}
    assert {"dengue-config"} == {node.kind for node in graph.nodes if node.type == "config"}


def test_prediction_is_complete(site: Site, predicted: Finished) -> None:
    """The stored prediction has a row for each line of the future file, with the samples the config asks for."""
    resources = site.resources
    frame = load(resources.store, get_artifact(resources.database, predicted.fact.output("prediction").id))
    lines = (site.folder / "examples/dengue_forecast/data/future.csv").read_text().splitlines()
    assert (len(lines) - 1, 2 + 500) == frame.shape


def test_prediction_shows_its_plot(site: Site, predicted: Finished) -> None:
    """The page of a prediction shows a picture of the forecast inside its summary."""
    (shown,) = site.artifacts(predicted.flow_run_id)
    picture = re.search(r"!\[[^]]*\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", shown["data"])
    assert picture is not None
    content = base64.b64decode(picture[1], validate=True)
    assert content.startswith(b"\x89PNG\r\n")
    assert hashlib.sha256(content).hexdigest() in predicted.fact.output("plot").digest


@pytest.mark.parametrize(
    "config", [{"n_lags": "many"}, {"n_lags": 99}, {"additional_continuous_covariates": "rainfall"}]
)
def test_bad_config_is_refused_before_the_run(site: Site, config: dict[str, Any]) -> None:
    """The server refuses a config that does not fit its fields, and names the field."""
    with pytest.raises(httpx.HTTPStatusError) as refused:
        site.create_run(TRAIN, {"config": config})
    assert 409 == refused.value.response.status_code
    assert f"Validation failed for field 'config.{next(iter(config))}'" in refused.value.response.text


def test_bad_artifact_id_fails_with_a_remedy(site: Site) -> None:
    """A prediction with an unknown id fails, and the run says how to find the right one."""
    flow_run_id = site.create_run(PREDICT, {"model": "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"})
    state = site.wait_for(flow_run_id)
    assert "FAILED" == state["type"]
    assert "training_artifact_not_found" in state["message"]
    assert "chapkit-flows artifacts list" in state["message"]
    fact = get_run(site.resources.database, flow_run_id)
    assert "failed" == fact.status
    assert fact.error is not None
    assert "training_artifact_not_found" in fact.error
    assert "table" in [shown["type"] for shown in site.artifacts(flow_run_id)]


FIVE_LINES = '''
import pandas as pd
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class RainConfig(ModelConfig):
    """Settings of the rainfall regression."""
    n_lags: int = 3

def on_train(config, data, geo=None):
    return data.groupby("location")["disease_cases"].mean()

def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(sample_0=future["location"].map(model).fillna(0.0))

rain = Model(name="rain", config=RainConfig, runner=FunctionalModelRunner(on_train, on_predict),
             period_type="monthly", required_covariates=["rainfall"])
train, predict = rain.train, rain.predict

if __name__ == "__main__":
    rain.train.serve(name="mine", parameters={"config": {"n_lags": 2}, "data": "data.csv"})
'''


@pytest.fixture
def served(site: Site, tmp_path: Path) -> Iterator[str]:
    """The name of a deployment that a user's own file serves from its own folder."""
    (tmp_path / "rain.py").write_text(FIVE_LINES, encoding="utf-8")
    source = site.folder / "examples/dengue_forecast/data/training.csv"
    (tmp_path / "data.csv").write_bytes(source.read_bytes())
    environment = {**site.environment, "PREFECT_RUNNER_POLL_FREQUENCY": "2"}
    log = tmp_path / "serve.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [script("python"), "rain.py"], cwd=tmp_path, env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        name = "rain-train/mine"
        assert site.has_deployment(name, while_running=process), log.read_text()
        yield name
    finally:
        stop(process)


def test_model_in_one_file_serves_itself(site: Site, served: str, tmp_path: Path) -> None:
    """A model written in one file, and served from there, runs when the server says so."""
    assert "rain.py:rain.train" == site.read(f"/deployments/name/{served}")["entrypoint"]
    finished = _finish(site, site.create_run(served, {}))
    assert finished.fact.config is not None
    assert 2 == finished.fact.config.content["n_lags"]
    assert f"{tmp_path / 'rain.py'}:rain" == finished.fact.entrypoint
