"""Train and predict with the store elsewhere than on the local disk."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import s3_server
from sites import ROOT

from chapkit_flows import load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.lineage.query import get_artifact, list_artifacts

DATA = ROOT / "examples/dengue_forecast/data"
BUCKET = "forecasts"


@pytest.fixture(scope="module")
def s3_options() -> Iterator[dict[str, object]]:
    """Options that lead to an S3 server of this process, with a bucket."""
    with s3_server(BUCKET) as options:
        yield options


@pytest.fixture(params=["s3", "memory"])
def storage_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store that the settings name."""
    url = f"memory://{uuid.uuid4().hex}"
    if request.param == "s3":
        options = request.getfixturevalue("s3_options")
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_STORAGE_OPTIONS", json.dumps(options))
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_STORAGE_URL", url)
    return url


@pytest.mark.parametrize("example", ["dengue_forecast", "shell_model"])
def test_trains_and_predicts(server: str, home: Path, storage_url: str, example: str) -> None:
    """A model trained into the store can be predicted with from there; nothing is put on the local disk."""
    model = load_model(ROOT / "examples" / example / "model.py")
    trained = model.train(model.config(n_samples=10), str(DATA / "training.csv"), str(DATA / "geo.json"))
    predicted = model.predict(
        trained.artifact_id, str(DATA / "historic.csv"), str(DATA / "future.csv"), str(DATA / "geo.json")
    )

    resources = open_resources()
    assert storage_url == resources.store.url
    frame = load(resources.store, get_artifact(resources.database, predicted.artifact_id))
    assert (15, 2 + 10) == frame.shape
    assert all(resources.store.has(artifact.digest) for artifact in list_artifacts(resources.database))
    assert {"lineage.db"} >= {path.name for path in home.iterdir() if not path.name.startswith("lineage.db-")}
