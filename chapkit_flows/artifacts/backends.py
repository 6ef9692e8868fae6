"""Where a store's keys live: a folder of this machine, or a file system reached through fsspec.

A backend moves whole files by key and knows nothing of digests. Its own failures are raised as
`StoreUnavailable`; a key that is absent is a `FileNotFoundError`, which the store translates.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import io
import os
import re
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import fsspec
from fsspec.callbacks import Callback, NoOpCallback

from chapkit_flows.errors import StoreUnavailable

MIB = 1 << 20
SMALL = 8 * MIB
"""Up to this size an object of a remote store is moved in one request; it is the part size of larger ones."""

RENEW_SECONDS = 24 * 3600.0
"""An object that was last written or claimed longer ago is written anew when somebody needs it: garbage collection,
which spares everything that is younger than a week, then leaves it alone."""

_MODIFIED = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
Progress = Callable[[str, int], None]
"""Told what is being done (`download`, `check`, `write`, `read`, `store`, `upload`) and to how many bytes more.
Threads may call it at once."""

_PARTS = 9000
"""S3 allows 10 000 parts to an upload."""

_EXTRAS = {"s3": "s3", "gs": "gcs", "az": "azure", "sftp": "sftp"}
_FOREIGN_ERRORS = {
    "s3": ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError", "aiohttp:ClientError"),
    "gs": ("gcsfs.retry:HttpError", "google.auth.exceptions:GoogleAuthError", "aiohttp:ClientError"),
    "az": ("azure.core.exceptions:AzureError",),
    "sftp": ("asyncssh:Error",),
}
_OBJECT_STORES = ("s3", "gs", "az")

_S3_CONFIG = {"connect_timeout": 10, "read_timeout": 20, "retries": {"mode": "standard", "total_max_attempts": 3}}

_REMEDIES = {
    errno.ENOSPC: "There is no space left. Free some, or set another storage URL.",
    errno.EDQUOT: "Its quota is used up, no space left. Free some, or set another storage URL.",
    errno.EFBIG: "The file is larger than the limit there. Raise the limit, or set another storage URL.",
    errno.EROFS: "It is read-only. Make it writable, or set another storage URL.",
    errno.EACCES: "You have no rights there, or it is read-only. Ask for them, or set another storage URL.",
    errno.EPERM: "You have no rights there, or it is read-only. Ask for them, or set another storage URL.",
    errno.ENOTDIR: "A file lies where a folder is needed. Move it away, or set another storage URL.",
    errno.EEXIST: "A file lies where a folder is needed. Move it away, or set another storage URL.",
}
_SECRET_NAMES = re.compile(r"(?i)secret|passw|passphrase|token|key|credential|connection_string|sas")
_ANY_REMEDY = "Check its URL, rights, network and free space."


def mask_url(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(?<=://)([^/@:]*):.*@", r"\1:***@", url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One key as a listing shows it.

    Attributes:
        modified: When it was last written or claimed.
    """

    key: str
    size: int
    modified: datetime


class Backend(Protocol):
    """Keys (relative POSIX paths) and their bytes."""

    @property
    def url(self) -> str:
        """Where it is, without credentials."""

    def guard(self, action: str) -> AbstractContextManager[None]:
        """Within it, failures of the outside world become StoreUnavailable."""

    def spool(self) -> AbstractContextManager[BinaryIO]:
        """A new empty local file to fill and `publish`; it is gone after the block."""

    def publish(
        self, spooled: BinaryIO, key: str, *, overwrite: bool = False, progress: Progress | None = None
    ) -> bool:
        """Give the spooled bytes a key, all at once. Without `overwrite`, one that has them is left as it is.

        Whether it has them may be judged by its size where reading is dear.

        Returns:
            Whether a removal that has begun may still take the key away: see `Store.sweep`.
        """

    def claim(self, key: str, size: int) -> bool:
        """Whether so many bytes have the key, and a removal will leave them there for `RENEW_SECONDS` at least."""

    def open(self, key: str, *, progress: Progress | None = None) -> BinaryIO:
        """A seekable local file of the bytes; `progress` is told of those that come from elsewhere.

        Raises:
            FileNotFoundError: The key is absent.
        """

    def size(self, key: str) -> int | None:
        """The number of bytes; None when the key is absent."""

    def keys(self, folder: str) -> list[str]:
        """All keys below a folder, sorted."""

    def entries(self, folder: str) -> list[Entry]:
        """The keys right in a folder, in no order; none where there is no such folder."""

    def remove(self, key: str, *, unused_since: datetime) -> bool:
        """Take a key away, unless it was written or claimed after a moment; tell whether it is away."""


class LocalBackend:
    """A folder. What it publishes survives a crash of the process and of the machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    @contextmanager
    def guard(self, action: str) -> Iterator[None]:
        """Translate failures of the disk."""
        try:
            yield
        except OSError as error:
            raise _unavailable(self.url, action, error) from error

    @contextmanager
    def spool(self) -> Iterator[BinaryIO]:
        """A file in `tmp/`, thus in the same file system as the objects, so that a rename publishes it."""
        with self.guard("written"):
            folder = self.root / "tmp"
            _make_folder(folder)
            path = folder / f"{uuid.uuid4().hex}.part"
            file = io.FileIO(str(path), "x+b", opener=_read_only_opener)
        with file:
            try:
                yield cast(BinaryIO, file)
            finally:
                with suppress(OSError):  # after publishing there is nothing left to remove
                    path.unlink()

    def publish(
        self, spooled: BinaryIO, key: str, *, overwrite: bool = False, progress: Progress | None = None
    ) -> bool:
        """Make the bytes durable, then the name, then the folder that holds the name."""
        target = self.root / key
        with self.guard("written"):
            if overwrite or not (_holds(target, spooled) and self.claim(key, spooled.seek(0, os.SEEK_END))):
                os.fsync(spooled.fileno())
                _make_folder(target.parent)
                Path(spooled.name).replace(target)
            # Also for an object that was there: its writer may still be on the way to this line.
            _sync_folder(target.parent)
        return False

    def claim(self, key: str, size: int) -> bool:
        """Look at the file; make an old one count as new, under a lock that `remove` respects."""
        path = self.root / key
        with self.guard("read"):
            try:
                found = path.stat()
                if found.st_size != size or not _is_old(found.st_mtime):
                    return found.st_size == size
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
                    os.utime(path)
                    return os.fstat(file.fileno()).st_ino == path.stat().st_ino
            except (FileNotFoundError, PermissionError):  # another user's file is written again, in its place
                return False

    def open(self, key: str, *, progress: Progress | None = None) -> BinaryIO:
        """Open the file itself."""
        try:
            return (self.root / key).open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unavailable(self.url, "read", error) from error

    def size(self, key: str) -> int | None:
        """Ask the file system."""
        with self.guard("read"):
            try:
                return (self.root / key).stat().st_size
            except FileNotFoundError:
                return None

    def keys(self, folder: str) -> list[str]:
        """Walk the folder."""
        with self.guard("read"):
            found = (self.root / folder).rglob("*")
            return sorted(path.relative_to(self.root).as_posix() for path in found if path.is_file())

    def entries(self, folder: str) -> list[Entry]:
        """Scan the folder."""
        found = []
        with self.guard("read"), suppress(FileNotFoundError), os.scandir(self.root / folder) as files:
            for file in files:
                with suppress(FileNotFoundError):  # removed meanwhile
                    if file.is_file():
                        status = file.stat()
                        moment = datetime.fromtimestamp(status.st_mtime, UTC)
                        found.append(Entry(key=f"{folder}/{file.name}", size=status.st_size, modified=moment))
        return found

    def remove(self, key: str, *, unused_since: datetime) -> bool:
        """Look at the age again under a lock, so that nobody claims the file in between."""
        path = self.root / key
        with self.guard("written"):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    if path.stat().st_mtime > unused_since.timestamp():
                        return False
                    path.unlink()
            except FileNotFoundError:
                pass
        return True


class RemoteBackend:
    """A file system of fsspec: an object store, a host, or the memory of this process."""

    def __init__(self, url: str, scheme: str, options: Mapping[str, Any]) -> None:
        self.url = mask_url(url)
        # Longest first: a secret may be part of another one.
        hidden = sorted({url, *_secret_values(options)}, key=len, reverse=True)
        self._masks = {secret: self.url if secret == url else "***" for secret in hidden if secret != self.url}
        self._scheme = scheme
        self._foreign: tuple[type[BaseException], ...] = (OSError,)
        try:
            fsspec.get_filesystem_class(scheme)
            # So drivers answer options that do not fit, some as late as when they connect.
            self._foreign = (OSError, ValueError, TypeError, *_foreign_errors(scheme))
            with self.guard("opened"):
                self._files, root = fsspec.core.url_to_fs(url, **_with_defaults(scheme, options))
        except ImportError as error:
            raise StoreUnavailable(
                f"The driver for {scheme}:// is not installed, so the store {self.url} cannot be opened. "
                f'Install it with: pip install "chapkit-flows[{_EXTRAS.get(scheme, scheme)}]"'
            ) from error
        self._root = root.rstrip("/")

    @contextmanager
    def guard(self, action: str) -> Iterator[None]:
        """Translate failures of the driver, which has its own errors beside OSError."""
        try:
            yield
        except self._foreign as error:
            told = "".join(traceback.format_exception(error))
            wrapped = _unavailable(self.url, action, error, masks=self._masks)
            # The log of a run shows the cause as well, which must not tell a secret.
            raise wrapped from (None if any(secret in told for secret in self._masks) else error)

    @contextmanager
    def spool(self) -> Iterator[BinaryIO]:
        """A file in the system's temporary folder."""
        with self.guard("written"):
            file = tempfile.NamedTemporaryFile(prefix="chapkit-flows-", suffix=".part")  # noqa: SIM115 (closed below)
        with file:
            yield cast(BinaryIO, file)

    def publish(
        self, spooled: BinaryIO, key: str, *, overwrite: bool = False, progress: Progress | None = None
    ) -> bool:
        """Upload in one request, or in parts that show only when the last has arrived."""
        spooled.flush()
        size = spooled.seek(0, os.SEEK_END)
        before = None if overwrite else self._entry(key)
        if before is not None and before.size == size and not _is_old(before.modified.timestamp()):
            return False
        with self.guard("written"):
            if self._scheme in _OBJECT_STORES:
                self._upload(spooled, self._path(key), size, progress)
                return before is not None
            # Here an unfinished upload can be seen, so it gets its name when it is complete.
            target, unfinished = self._path(key), self._path(f"tmp/{uuid.uuid4().hex}.part")
            for path in (target, unfinished):
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._upload(spooled, unfinished, size, progress)
            self._files.mv(unfinished, target)
        return before is not None

    def claim(self, key: str, size: int) -> bool:
        """Look at size and age: an old object is uploaded again, which makes it new."""
        found = self._entry(key)
        return found is not None and found.size == size and not _is_old(found.modified.timestamp())

    def open(self, key: str, *, progress: Progress | None = None) -> BinaryIO:
        """Download: small objects into memory, others into a temporary file."""
        path = self._path(key)
        size = self.size(key)
        if size is None:
            raise FileNotFoundError(path)
        with self.guard("read"):
            if size <= SMALL:
                return io.BytesIO(self._files.cat_file(path))
            with tempfile.TemporaryDirectory(prefix="chapkit-flows-") as folder:
                target = Path(folder) / "object"
                # By default s3fs holds many parts of 50 MiB at once.
                limits = {"chunksize": SMALL, "max_concurrency": 2} if self._scheme == "s3" else {}
                told = _Told("download", progress) if progress else NoOpCallback()
                self._files.get_file(path, str(target), callback=told, **limits)
                return target.open("rb")  # an open file outlives its name

    def size(self, key: str) -> int | None:
        """Ask the driver."""
        found = self._entry(key)
        return None if found is None else found.size

    def keys(self, folder: str) -> list[str]:
        """List everything below the folder."""
        with self.guard("read"):
            try:
                found = self._files.find(self._path(folder))
            except FileNotFoundError:
                return []
        return sorted(path[len(self._root) + 1 :] for path in found)

    def entries(self, folder: str) -> list[Entry]:
        """List the folder."""
        with self.guard("read"):
            try:
                found = self._files.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return []
        return [_to_entry(f"{folder}/{info['name'].rpartition('/')[2]}", info) for info in found if info["size"]]

    def remove(self, key: str, *, unused_since: datetime) -> bool:
        """Look at the age again, right before."""
        found = self._entry(key)
        if found is not None and found.modified > unused_since:
            return False
        with self.guard("written"), suppress(FileNotFoundError):
            self._files.rm_file(self._path(key))
        return True

    def _entry(self, key: str) -> Entry | None:
        with self.guard("read"):
            try:
                return _to_entry(key, self._files.info(self._path(key)))
            except FileNotFoundError:
                return None

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _upload(self, spooled: BinaryIO, path: str, size: int, progress: Progress | None) -> None:
        if size <= SMALL:
            spooled.seek(0)
            self._files.pipe_file(path, spooled.read())
            return
        part = max(SMALL, -(-size // _PARTS))
        limits = {"s3": {"chunksize": part, "max_concurrency": 2}, "gs": {"chunksize": part}}
        told = _Told("upload", progress) if progress else NoOpCallback()
        self._files.put_file(spooled.name, path, callback=told, **limits.get(self._scheme, {}))


def _is_old(modified: float) -> bool:
    return modified < time.time() - RENEW_SECONDS


def _to_entry(key: str, info: Mapping[str, Any]) -> Entry:
    """Each driver has a name of its own for the time of the last write."""
    moment = next((info[name] for name in _MODIFIED if info.get(name) is not None), None)
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    elif isinstance(moment, int | float):
        moment = datetime.fromtimestamp(moment, UTC)
    elif moment is None:
        moment = datetime.now(UTC)  # of unknown age: never old
    return Entry(key=key, size=int(info["size"]), modified=moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _with_defaults(scheme: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, and what a driver should do where they do not say."""
    if scheme == "sftp":
        # sshfs would take any host for the right one; this stands for ~/.ssh/known_hosts.
        return {"known_hosts": (), **options}
    if scheme == "s3":
        # A request to a silent server would end after a minute, be repeated five times, and that five times again.
        options = {**options, "config_kwargs": {**_S3_CONFIG, **(options.get("config_kwargs") or {})}}
    # Another process may write at any time, so a listing must not be remembered.
    return {"use_listings_cache": False, **options} if scheme in _OBJECT_STORES else options


class _Told(Callback):  # type: ignore[misc]  # fsspec has no types
    """What fsspec reports of a transfer, as bytes more."""

    def __init__(self, what: str, progress: Progress) -> None:
        super().__init__()
        self._what = what
        self._progress = progress
        self._before = 0

    def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
        if self.value > self._before:
            self._progress(self._what, self.value - self._before)
            self._before = self.value


def _secret_values(options: Mapping[str, Any], *, within: bool = False) -> Iterator[str]:
    """The texts under names that sound secret, at any depth; shorter ones would be found in ordinary words."""
    for name, value in options.items():
        secret = within or bool(_SECRET_NAMES.search(str(name)))
        if isinstance(value, Mapping):
            yield from _secret_values(value, within=secret)
        elif secret and isinstance(value, str) and len(value) > 4:
            yield value


def _read_only_opener(path: str, flags: int) -> int:
    """Objects never change: a file without write permission also survives a careless user."""
    return os.open(path, flags, 0o444)


def _holds(path: Path, spooled: BinaryIO) -> bool:
    """Whether a file has these very bytes: one with a flipped bit or a bad sector is to be replaced."""
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != spooled.seek(0, os.SEEK_END):
                return False
            spooled.seek(0)
            while chunk := file.read(MIB):
                if chunk != spooled.read(len(chunk)):
                    return False
    except OSError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents so that each name survives a crash."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _foreign_errors(scheme: str) -> tuple[type[BaseException], ...]:
    """The driver's own errors. Its module is imported already, the packages below it as well."""
    errors = []
    for place in _FOREIGN_ERRORS.get(scheme, ()):
        module, _, name = place.partition(":")
        errors.append(getattr(importlib.import_module(module), name))
    return tuple(errors)


def _unavailable(
    url: str, action: str, error: BaseException, *, masks: Mapping[str, str] | None = None
) -> StoreUnavailable:
    number = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    for secret, shown in (masks or {}).items():
        reason = reason.replace(secret, shown)
    remedy = _REMEDIES.get(number, _ANY_REMEDY) if number is not None else _ANY_REMEDY
    return StoreUnavailable(f"The store {url} cannot be {action}: {reason.rstrip('.')}. {remedy}")
