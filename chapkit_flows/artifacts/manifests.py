"""How to read a stored object without the database: a small document beside the objects."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from chapkit_flows.artifacts.codecs import libraries_of
from chapkit_flows.errors import ArtifactError
from chapkit_flows.refs import ArtifactRef

FORMAT = 1
FOLDS = "folds"
"""The folder of the manifests that say which folds are done: they make a rerun find them, in whatever process."""
PLACES = "places"
"""The folder of the manifests that say for which places a model is trained, and on what."""

_LIBRARIES = ("chapkit-flows", "cloudpickle", "numpy", "pandas", "pyarrow")
_FIELDS = ("id", "kind", "level", "digest", "size", "media_type", "codec", "status")


def artifact_manifest(artifact: ArtifactRef, *, run_id: str | None) -> dict[str, Any]:
    """Everything to read an artifact by, and who wrote it: plain JSON values.

    Args:
        artifact: An artifact that was stored.
        run_id: The run that made it; None for one that was brought in by hand.
    """
    return {
        "format": FORMAT,
        **{name: getattr(artifact, name) for name in _FIELDS},
        "created_at": artifact.created_at.isoformat(),
        "run_id": run_id,
        "metadata": dict(artifact.metadata),
        "libraries": {
            "python": platform.python_version(),
            **{name.replace("-", "_"): _version(name) for name in (*_LIBRARIES, *libraries_of(artifact.codec))},
        },
        "writer": f"{user_name()}@{socket.gethostname()}",
    }


def artifact_from_manifest(document: Mapping[str, Any]) -> ArtifactRef:
    """The artifact that a manifest describes.

    Raises:
        ArtifactError: It is no manifest of an artifact, or one of a newer version.
    """
    found = document.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise ArtifactError(
            f"The manifest has format {found!r}; this version reads up to {FORMAT}. Upgrade chapkit-flows."
        )
    try:
        return ArtifactRef(
            **{name: document[name] for name in _FIELDS},
            created_at=datetime.fromisoformat(document["created_at"]),
            metadata=dict(document["metadata"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"The document is no manifest of an artifact: {error}. Restore it from a backup."
        ) from error


@cache
def _version(distribution: str) -> str:
    """What this process has imported, whatever is installed later."""
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a source folder that is not installed
        return "unknown"


def user_name() -> str:
    """Who this process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        return str(os.getuid())
