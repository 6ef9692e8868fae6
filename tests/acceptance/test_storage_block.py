"""Train and predict into a store that a saved block names, and look for its secrets wherever bytes were left."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_api import connect
from servers import s3_server
from sites import ROOT, run_program, script

from chapkit_flows import ArtifactLocation

MODEL = ROOT / "examples/dengue_forecast/model.py"
DATA = ROOT / "examples/dengue_forecast/data"
CANARY = "canary-77ab-do-not-show"
BUCKET = "by-block"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """Options with a secret that lead to an S3 server of this process, with a bucket."""
    with s3_server(BUCKET, CANARY) as options:
        yield options


def command(*arguments: object, block: str) -> subprocess.CompletedProcess[str]:
    """How a command ended, and all that it printed, in as many words as it can."""
    return subprocess.run(
        [str(script("chapkit-flows")), *map(str, arguments)],
        env=os.environ | {"PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_STORAGE_BLOCK": block, "PREFECT_LOGGING_LEVEL": "DEBUG"},
        capture_output=True,
        text=True,
        timeout=180,
    )


def holders(folder: Path) -> list[str]:
    """The files below a folder that hold the canary."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if CANARY.encode() in path.read_bytes()]


def test_secrets_of_the_block_stay_there(server: str, home: Path, s3: dict[str, Any], tmp_path: Path) -> None:
    """After runs that end well and badly no output, log, row, manifest or object holds an option's secret."""
    import s3fs

    broken = s3 | {"client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}, "config_kwargs": {"connect_timeout": 1}}
    ArtifactLocation(url=f"s3://{BUCKET}/artifacts", options=s3).save("canary", overwrite=True)
    ArtifactLocation(url=f"s3://{BUCKET}/elsewhere", options=broken).save("canary-broken", overwrite=True)

    training = command("train", MODEL, "--data", DATA / "training.csv", "--json", "--verbose", block="canary")
    assert 0 == training.returncode, training.stderr
    trained = json.loads(training.stdout)["artifact_id"]
    inputs = ("--historic", DATA / "historic.csv", "--future", DATA / "future.csv")
    commands = [
        training,
        command("predict", trained, *inputs, "--verbose", block="canary"),
        command("artifacts", "download", trained, "--out", tmp_path / "model.bin", block="canary"),
        command("doctor", block="canary"),
        command("train", MODEL, "--data", DATA / "training.csv", "--verbose", block="canary-broken"),
    ]

    assert [0, 0, 0, 0, 2] == [done.returncode for done in commands], commands
    assert CANARY not in "".join(done.stdout + done.stderr for done in commands)
    files = s3fs.S3FileSystem(**s3)
    stored = {path: files.cat_file(path) for path in files.find(BUCKET)}
    assert len(stored) > 5
    assert [] == [path for path, content in stored.items() if CANARY.encode() in path.encode() + content]
    assert [] == holders(home), "the lineage database"
    assert [] == holders(Path(os.environ["PREFECT_HOME"])), "the server's database and logs"
    assert "lineage.db" in {path.name for path in home.iterdir()}


def test_block_type_can_be_registered(server: str) -> None:
    """Prefect's own command registers the block type, so that the form in its UI can make the first location."""
    module = "chapkit_flows.configs"
    run_program([script("prefect"), "block", "register", "--module", module], folder=ROOT, environment=os.environ)
    with connect(server) as api:
        found = api.get("/block_types/slug/artifact-location").raise_for_status().json()
    assert "Artifact Location" == found["name"]
    assert "predictions" in found["description"]
