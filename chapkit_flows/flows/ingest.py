"""Bring the bytes behind a URI into the store, and read them as a table or as polygons."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from chapkit_flows.artifacts.backends import Progress
from chapkit_flows.artifacts.watching import watch
from chapkit_flows.data.geo import read_geo
from chapkit_flows.data.panels import check_panel
from chapkit_flows.data.tables import mask_uri, media_type_of, open_source, read_table
from chapkit_flows.errors import (
    ArtifactDeleted,
    ArtifactNotFound,
    ChapkitFlowsError,
    DataError,
    DataNotFound,
    DigestMismatch,
    EmptyTable,
    InvalidId,
    ObjectMissing,
)
from chapkit_flows.flows.check import Loaded
from chapkit_flows.lineage.deletions import get_usable
from chapkit_flows.lineage.query import find_dataset
from chapkit_flows.models.runner import Geo
from chapkit_flows.refs import ArtifactRef, Diagnostic, new_id
from chapkit_flows.resources import Resources

SCHEME = "artifact://"
GEO_JSON = "application/geo+json"
_TABLES = ("text/csv", "application/vnd.apache.parquet")
_CHUNK = 4 * 1024 * 1024

# What the user's data can be the cause of; a store or a database that does not answer is none of it.
UNREADABLE = (DataError, ArtifactDeleted, ArtifactNotFound, InvalidId, ObjectMissing, DigestMismatch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The bytes behind a URI, all here: what is parsed is what was hashed.

    Attributes:
        artifact: Set when the URI named an artifact.
    """

    uri: str
    file: BinaryIO
    digest: str
    size: int
    media_type: str
    artifact: ArtifactRef | None = None

    @property
    def name(self) -> str:
        """The last part of the URI, without a query."""
        return self.uri.split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1]


@contextmanager
def fetch(resources: Resources, uri: str) -> Iterator[Fetched]:
    """Get the bytes behind a URI: any fsspec URL, a path, or `artifact://ID`.

    Raises:
        DataNotFound: There is nothing readable.
        ArtifactError: The artifact is unknown, or its bytes are missing or damaged.
    """
    if uri.startswith(SCHEME):
        artifact = get_usable(resources.database, uri.removeprefix(SCHEME))
        if artifact.media_type not in (*_TABLES, GEO_JSON):
            raise DataNotFound(f"{uri} is a {artifact.kind} ({artifact.media_type}), neither a table nor GeoJSON.")
        with resources.store.open(artifact.digest) as file:
            yield Fetched(
                uri=uri,
                file=file,
                digest=artifact.digest,
                size=artifact.size,
                media_type=artifact.media_type,
                artifact=artifact,
            )
        return
    if not uri.strip():
        raise DataNotFound("The URI is empty. Pass a path, any fsspec URL, or artifact://ID.")
    with open_source(uri) as source, tempfile.TemporaryFile(prefix="chapkit-flows-") as spool:
        with watch() as tell:
            digest, size = _copy(source, spool, tell)
        spool.seek(0)
        media_type = media_type_of(uri, spool.read(4096))
        spool.seek(0)
        yield Fetched(uri=_absolute(uri), file=cast(BinaryIO, spool), digest=digest, size=size, media_type=media_type)


def parse_table(
    fetched: Fetched, role: Any, *, required: Sequence[str], target: str, with_target: bool = True
) -> Loaded:
    """Read a table and check it by itself.

    Raises:
        UnreadableTable: It is no table.
    """
    numeric = [*required, target] if with_target else list(required)
    frame = read_table(fetched.file, media_type=fetched.media_type, numeric=numeric, name=f"{role} ({fetched.name})")
    panel, findings = check_panel(frame, role=role, required=required, target=target if with_target else None)
    return Loaded(panel=panel, findings=tuple(findings))


def parse_geo(fetched: Fetched) -> Geo:
    """Read polygons.

    Raises:
        InvalidGeo: They are no GeoJSON FeatureCollection.
    """
    return read_geo(fetched.file.read(), name=f"geo ({fetched.name})")


def unreadable(error: ChapkitFlowsError, role: str) -> Diagnostic:
    """The finding that an input cannot be read: `UnreadableTable` as `unreadable_table`, no bytes as `data_empty`."""
    if isinstance(error, EmptyTable):
        return Diagnostic.error(f"{role}_empty", str(error), role)
    code = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
    return Diagnostic.error(code, str(error), role)


def keep(resources: Resources, fetched: Fetched, metadata: Mapping[str, Any]) -> tuple[ArtifactRef, bool]:
    """Put the bytes into the store; equal bytes are one dataset, however often they come.

    Returns:
        The dataset, and whether it is new.
    """
    if fetched.artifact is not None:
        return fetched.artifact, False
    known = find_dataset(resources.database, fetched.digest, fetched.media_type)
    if known is None or not resources.store.claim(known.digest, known.size):
        fetched.file.seek(0)
        resources.store.put(fetched.file)
    if known is not None:
        return known, False
    facts = {"uri": fetched.uri, "name": fetched.name} | dict(metadata)
    artifact = ArtifactRef(
        id=new_id(),
        kind="dataset",
        digest=fetched.digest,
        size=fetched.size,
        media_type=fetched.media_type,
        metadata=facts,
    )
    return artifact, True


def _copy(source: IO[bytes], sink: IO[bytes], tell: Progress) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        tell("read", len(chunk))
        try:
            sink.write(chunk)
            sink.flush()
        except OSError as error:
            raise DataError(
                f"The data cannot be copied to {tempfile.gettempdir()}: {error.strerror}. "
                "Free space there, or set TMPDIR to another folder."
            ) from error
        size += len(chunk)
    return f"sha256:{digest.hexdigest()}", size


def _absolute(uri: str) -> str:
    """The URI as lineage keeps it: without credentials, and independent of the working directory."""
    return mask_uri(uri) if "://" in uri else str(Path(uri).expanduser().absolute())
