"""Manifests: an artifact is readable without the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from chapkit_flows.artifacts.codecs import load, save
from chapkit_flows.artifacts.manifests import artifact_from_manifest, artifact_manifest
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.errors import ArtifactError
from chapkit_flows.refs import ArtifactRef, canonical_json, new_id

ARTIFACT = ArtifactRef(
    id=new_id(),
    kind="prediction",
    level=1,
    digest="sha256:" + "0" * 64,
    size=7,
    media_type="text/csv",
    codec="csv",
    status="failed",
    metadata={"rows": 3, "uri": "file:///données.csv", "none": None},
)


def test_artifact_comes_back() -> None:
    """An artifact comes back from the JSON text of its manifest, to the microsecond."""
    document = json.loads(canonical_json(artifact_manifest(ARTIFACT, run_id="01A")))
    assert ARTIFACT == artifact_from_manifest(document)


def test_what_a_manifest_records() -> None:
    """A manifest names run, writer and the versions that wrote the bytes."""
    document = artifact_manifest(ARTIFACT, run_id="01A")
    assert (1, "01A") == (document["format"], document["run_id"])
    assert {"python", "pandas", "cloudpickle", "chapkit_flows"} <= document["libraries"].keys()
    assert pd.__version__ == document["libraries"]["pandas"]
    assert all(document["writer"].split("@"))


def test_value_is_read_by_its_manifest(tmp_path: Path) -> None:
    """The store alone is enough to read a value again."""
    store = open_store(str(tmp_path))
    saved = save(store, {"coefficients": [1.5]})
    artifact = ArtifactRef(
        id=new_id(),
        kind="training_workspace",
        digest=saved.digest,
        size=saved.size,
        media_type=saved.media_type,
        codec=saved.codec,
    )
    store.write_manifest(f"artifacts/{artifact.id}", artifact_manifest(artifact, run_id=None))
    again = open_store(str(tmp_path))
    (name,) = again.manifest_names("artifacts")
    assert {"coefficients": [1.5]} == load(again, artifact_from_manifest(again.read_manifest(name)))


@pytest.mark.parametrize("changes", [{"format": 2}, {"format": None}, {"digest": ...}, {"created_at": "yesterday"}])
def test_document_that_is_no_manifest(changes: dict[str, Any]) -> None:
    """A newer format, a missing field or a wrong time is an error."""
    document = artifact_manifest(ARTIFACT, run_id=None) | changes
    with pytest.raises(ArtifactError):
        artifact_from_manifest({key: value for key, value in document.items() if value is not ...})
