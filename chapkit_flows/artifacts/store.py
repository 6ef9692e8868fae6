"""A content-addressed store over one URL: bytes are named by their SHA-256, written once and checked when read.

Layout below the URL (format 1):

    format.json              {"format": 1}
    objects/sha256/ab/cdef…  the bytes with the digest sha256:abcdef…
    manifests/NAME.json      small documents, such as how to read an object
    damaged/cdef…            bytes that had the name of others, set aside
    tmp/                     unfinished writes; nothing there is ever read
    sweep.json               there while objects that nobody needs are removed
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from chapkit_flows.artifacts.backends import MIB, Backend, LocalBackend, Progress, RemoteBackend, mask_url
from chapkit_flows.artifacts.watching import watch
from chapkit_flows.errors import ArtifactError, DigestMismatch, ObjectMissing, StoreUnavailable
from chapkit_flows.refs import canonical_json, new_id, now

ALLOWED_SCHEMES = ("file", "memory", "s3", "gs", "az", "sftp")
FORMAT = 1
CHUNK = MIB

_SWEEP = "sweep.json"
_SWEEP_LEASE = timedelta(minutes=30)
_SWEEP_POLL_SECONDS = 0.2
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+(?:::[A-Za-z0-9+.-]+)*):(//)?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"(?!.*(?:^|/)\.)[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """Bytes in the store."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEntry(StoredObject):
    """An object as a listing shows it.

    Attributes:
        modified: When it was last written or claimed.
    """

    modified: datetime


class ObjectWriter(io.BufferedWriter):
    """A binary sink whose bytes become an object.

    Attributes:
        stored: The object; set when the block that wrote it has ended without an error.
    """

    def __init__(self, raw: _HashingSink) -> None:
        super().__init__(raw, CHUNK)
        self.stored = StoredObject(digest="", size=0)


class Sweep:
    """Removes objects that nobody needs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._announce()

    def _announce(self) -> None:
        self._announced = now()
        self._store._write_json(_SWEEP, {"until": (self._announced + _SWEEP_LEASE).isoformat()})

    def remove(self, digest: str, *, unused_since: datetime) -> bool:
        """Remove an object, unless it was written or claimed after a moment; tell whether it is gone.

        Raises:
            StoreUnavailable: The store cannot be written.
        """
        if now() > self._announced + _SWEEP_LEASE / 2:
            self._announce()
        return self._store._backend.remove(object_path(digest), unused_since=unused_since)

    def remove_manifest(self, name: str, *, unused_since: datetime) -> bool:
        """Remove a document, unless it was written after a moment; tell whether it is gone."""
        return self._store._backend.remove(_manifest_key(name), unused_since=unused_since)

    def remove_unfinished(self, *, unused_since: datetime) -> int:
        """Remove what dead processes left in `tmp/`; return how many files."""
        backend = self._store._backend
        old = [entry for entry in backend.entries("tmp") if entry.modified <= unused_since]
        return sum(backend.remove(entry.key, unused_since=unused_since) for entry in old)


class Store:
    """Objects by digest and small documents by name, below one URL."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._format_found = False

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self._backend.url

    def check(self) -> None:
        """Reach for the store, and make sure that this version can read it.

        Raises:
            StoreUnavailable: It cannot be read, or a newer version wrote it.
        """
        if self._format_found:
            return
        try:
            document = self._read_json("format.json")
        except FileNotFoundError:
            return  # nothing was ever written there
        found = document.get("format")
        if not isinstance(found, int) or found > FORMAT:
            raise StoreUnavailable(
                f"The store {self.url} has format {found}; this version reads up to {FORMAT}. Upgrade chapkit-flows."
            )
        self._format_found = True

    def reach(self) -> None:
        """Ask for something small, whatever is known already, so that nobody comes to hold a lock while it is silent.

        A silent object store is given up after minutes only.

        Raises:
            StoreUnavailable: It cannot be read, or a newer version wrote it.
        """
        self._format_found = False
        self.check()

    def probe(self) -> None:
        """Write a small document, read it back and remove it, to see that this can be done.

        Raises:
            StoreUnavailable: It cannot.
        """
        self._mark_format()
        key = f"tmp/probe-{new_id()}.json"
        self._write_json(key, {"written": now().isoformat()})
        self._read_json(key)
        if not self._backend.remove(key, unused_since=now() + _SWEEP_LEASE):
            raise StoreUnavailable(f"Nothing can be removed from the store {self.url}. Check rights: gc needs to.")

    @contextmanager
    def writer(self) -> Iterator[ObjectWriter]:
        """A sink for code that writes. The object exists when the block ends; after an error nothing does.

        Raises:
            StoreUnavailable: The store cannot be written.
        """
        self._mark_format()
        with watch() as tell, self._backend.spool() as spooled:
            raw = _HashingSink(spooled, self._backend, tell)
            writer = ObjectWriter(raw)
            try:
                yield writer
                if not writer.closed:
                    writer.flush()
            finally:
                raw.finished = True
                writer.close()
            stored = StoredObject(digest=f"sha256:{raw.hash.hexdigest()}", size=raw.size)
            key = object_path(stored.digest)
            while self._backend.publish(spooled, key, progress=tell):
                self._outlast_sweep()
                if self._backend.size(key) is not None:
                    break
            writer.stored = stored

    def put(self, source: BinaryIO) -> StoredObject:
        """Store all that is left to read of `source`, a chunk at a time.

        Raises:
            StoreUnavailable: The store cannot be written.
        """
        with self.writer() as writer:
            while chunk := source.read(CHUNK):
                writer.write(chunk)
        return writer.stored

    @contextmanager
    def open(self, digest: str, *, progress: Progress | None = None) -> Iterator[BinaryIO]:
        """A seekable local file; its bytes were checked before the block begins.

        Raises:
            ObjectMissing: The store does not hold them.
            DigestMismatch: It holds other bytes.
            StoreUnavailable: The store cannot be read.
        """
        self.check()
        try:
            file = self._backend.open(object_path(digest), progress=progress)
        except FileNotFoundError:
            raise ObjectMissing(
                f"The store {self.url} does not hold the object {digest}. "
                "Check the storage URL, or restore the object from a backup."
            ) from None
        with file:
            with self._backend.guard("read"):
                actual = _hash(file, progress)
                file.seek(0)
            if f"sha256:{actual}" != digest:
                raise DigestMismatch(
                    f"The object {object_path(digest)} in the store {self.url} is damaged: expected digest {digest}, "
                    f"found sha256:{actual}. Restore it from a backup, or make room for it to be stored again: "
                    "chapkit-flows fsck --bytes --set-aside"
                )
            yield file

    def has(self, digest: str) -> bool:
        """Whether the store holds an object, without looking at its bytes."""
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """The bytes an object takes; None when the store does not hold it."""
        self.check()
        return self._backend.size(object_path(digest))

    def claim(self, digest: str, size: int) -> bool:
        """Whether the store holds an object of that size and a sweep will leave it there; if not, put it (again).

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        self.check()
        return self._backend.claim(object_path(digest), size)

    def renew(self, digest: str) -> bool:
        """Whether the store holds an object, whatever its size; if so, a sweep will leave it there.

        Raises:
            DigestMismatch: It holds other bytes; they are looked at only where they must be written again.
            StoreUnavailable: The store cannot be read or written.
        """
        size = self.size(digest)
        if size is None:
            return False
        if not self.claim(digest, size):
            # An object store has no other way to make an object young.
            with self.open(digest) as file:
                self.put(file)
        return True

    def set_aside(self, digest: str) -> None:
        """Move damaged bytes to `damaged/`: an object that is there with the right size is not stored again.

        Raises:
            StoreUnavailable: The store cannot be written.
        """
        key = object_path(digest)
        with suppress(FileNotFoundError), self._backend.open(key) as file, self._backend.spool() as spooled:
            with self._backend.guard("read"):
                while chunk := file.read(CHUNK):
                    _write_whole(spooled, chunk)
            self._backend.publish(spooled, f"damaged/{digest[7:]}", overwrite=True)
        self._backend.remove(key, unused_since=now() + _SWEEP_LEASE)

    def objects(self, shard: int) -> Iterator[ObjectEntry]:
        """The objects whose digest begins with the byte `shard`, from 0 to 255, in no order."""
        self.check()
        for entry in self._backend.entries(f"objects/sha256/{shard:02x}"):
            digest = f"sha256:{shard:02x}{entry.key.rpartition('/')[2]}"
            if _DIGEST.fullmatch(digest):
                yield ObjectEntry(digest=digest, size=entry.size, modified=entry.modified)

    @contextmanager
    def sweep(self) -> Iterator[Sweep]:
        """Within it objects can be removed. Who writes one of them again meanwhile waits for the end.

        On a local disk a lock on each file keeps writers and sweeps apart; elsewhere this document does.
        """
        try:
            yield Sweep(self)
        finally:
            self._backend.remove(_SWEEP, unused_since=now() + _SWEEP_LEASE)

    def _outlast_sweep(self) -> None:
        while True:
            try:
                until = datetime.fromisoformat(str(self._read_json(_SWEEP).get("until")))
            except FileNotFoundError:
                return
            # Past: its process is dead. Far ahead: a clock has moved back since (that of another host may go ahead).
            if not now() <= until <= now() + 2 * _SWEEP_LEASE:
                return
            time.sleep(_SWEEP_POLL_SECONDS)

    def write_manifest(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a small JSON document, all at once, in place of one of that name."""
        self._mark_format()
        self._write_json(_manifest_key(name), document)

    def read_manifest(self, name: str) -> dict[str, Any]:
        """Read a document that `write_manifest` wrote.

        Raises:
            ObjectMissing: There is none of that name.
            DigestMismatch: It is no JSON any more.
        """
        self.check()
        try:
            return self._read_json(_manifest_key(name))
        except FileNotFoundError:
            raise ObjectMissing(f"The store {self.url} has no manifest {name!r}. Check the storage URL.") from None

    def manifest_names(self, folder: str = "") -> list[str]:
        """The names of all documents, or of those below a folder such as `runs`, sorted."""
        self.check()
        keys = self._backend.keys(f"manifests/{folder}".rstrip("/"))
        return [key.removeprefix("manifests/").removesuffix(".json") for key in keys if key.endswith(".json")]

    def _mark_format(self) -> None:
        """Write `format.json` before anything else is written."""
        self.check()
        if not self._format_found:
            self._write_json("format.json", {"format": FORMAT})
            self._format_found = True

    def _write_json(self, key: str, document: Mapping[str, Any]) -> None:
        with self._backend.spool() as spooled:
            with self._backend.guard("written"):
                _write_whole(spooled, canonical_json(document))
            self._backend.publish(spooled, key, overwrite=True)

    def _read_json(self, key: str) -> dict[str, Any]:
        with self._backend.open(key) as file, self._backend.guard("read"):
            content = file.read()
        try:
            document = json.loads(content)
        except ValueError as error:
            raise DigestMismatch(
                f"The document {key} in the store {self.url} is no JSON: {error}. Restore it from a backup."
            ) from error
        if not isinstance(document, dict):
            raise DigestMismatch(f"The document {key} in the store {self.url} is no JSON object. Restore it.")
        return document


def open_store(url: str, *, options: Mapping[str, Any] | None = None) -> Store:
    """Open the store at a path or fsspec URL. Nothing is created before the first write.

    Args:
        url: A path of this machine, or `memory://`, `s3://`, `gs://`, `az://`, `sftp://`.
        options: Keyword arguments of the fsspec file system, such as credentials.

    Raises:
        StoreUnavailable: The scheme is not allowed, or its driver is not installed.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else "file"
    if scheme not in ALLOWED_SCHEMES or (match and not match[2]):
        raise StoreUnavailable(
            f"The storage URL {mask_url(url)!r} is not allowed. "
            f"Write a path, or a URL that begins with one of: {', '.join(f'{name}://' for name in ALLOWED_SCHEMES)}"
        )
    if scheme == "file":
        path = Path(unquote(urlsplit(url).path)) if match else Path(url)
        return Store(LocalBackend(path.expanduser().absolute()))
    return Store(RemoteBackend(url, scheme, options or {}))


def copy_bytes(source: BinaryIO, sink: BinaryIO, progress: Progress | None = None) -> None:
    """Write all that is left to read of `source`, a chunk at a time."""
    while chunk := source.read(CHUNK):
        sink.write(chunk)
        if progress:
            progress("write", len(chunk))


class _HashingSink(io.RawIOBase):
    """Writes to a spooled file and hashes while the bytes are still in the processor's cache."""

    def __init__(self, spooled: BinaryIO, backend: Backend, progress: Progress) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self.finished = False
        self._spooled = spooled
        self._backend = backend
        self._progress = progress

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Take at most a chunk; the buffer above comes back with the rest."""
        if self.finished:  # after an error the buffer above still wants to get rid of its bytes
            return len(data)
        chunk = memoryview(data).cast("B")[:CHUNK]
        with self._backend.guard("written"):
            _write_whole(self._spooled, chunk)
        self.hash.update(chunk)
        self.size += len(chunk)
        self._progress("store", len(chunk))
        return len(chunk)


def _hash(file: BinaryIO, progress: Progress | None) -> str:
    found = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK // 4))  # stays in the processor's cache
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # BinaryIO has it at run time
        found.update(buffer[:count])
        if progress:
            progress("check", count)
    return found.hexdigest()


def _write_whole(file: BinaryIO, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:  # an unbuffered file may take less than it is given
        rest = rest[os.write(file.fileno(), rest) :]


def object_path(digest: str) -> str:
    """Where below the URL of a store an object lies."""
    if not _DIGEST.fullmatch(digest):
        raise ObjectMissing(f"{digest!r} is not a digest. A digest is sha256: and 64 hexadecimal digits.")
    return f"objects/sha256/{digest[7:9]}/{digest[9:]}"


def _manifest_key(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ArtifactError(f"{name!r} is no name for a manifest. Use letters, digits, '.', '_', '-' and '/'.")
    return f"manifests/{name}.json"
