"""Folders in the store: each file an object of its own, and one object that lists them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from chapkit_flows.artifacts.backends import Progress
from chapkit_flows.artifacts.store import Store, copy_bytes
from chapkit_flows.artifacts.watching import watch, watched_pool
from chapkit_flows.errors import ArtifactError, UnsafeTree
from chapkit_flows.refs import canonical_json, digest_of

MEDIA_TYPE = "application/vnd.chapkit-flows.tree+json"
FORMAT = 1
MAX_ENTRIES = 100_000
MAX_BYTES = 1 << 40
_THREADS = 4
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One file of a stored folder.

    Attributes:
        path: Relative, with `/`, in Unicode form NFC.
    """

    path: str
    digest: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTree:
    """A folder in the store.

    Attributes:
        digest: Of the list of files.
        size: Bytes of all files.
        files: How many there are.
    """

    digest: str
    size: int
    files: int


def put_tree(store: Store, folder: Path) -> StoredTree:
    """Store a folder. The same files give the same digest; a file that the store holds is not written again.

    Raises:
        UnsafeTree: It has a link that leaves it, a device, or names that could not be extracted everywhere.
        StoreUnavailable: The store cannot be written.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise ArtifactError(f"{folder} is no folder. Name an existing folder.")
    found = sorted(_walk(root, root, (root,)))
    empty = [path for path, source in found if source is None]
    sources = [(path, source) for path, source in found if source is not None]
    _check_paths([path for path, _ in sources], empty)
    with watch(), watched_pool(_THREADS) as pool:
        files = list(pool.map(lambda pair: _put_file(store, *pair), sources))
    return _put_list(store, files, empty)


def put_listing(store: Store, files: Sequence[TreeEntry]) -> StoredTree:
    """Make a folder of objects that the store holds already.

    Raises:
        UnsafeTree: It has names that could not be extracted everywhere.
        StoreUnavailable: The store cannot be written.
    """
    _check_paths([entry.path for entry in files], [])
    return _put_list(store, sorted(files, key=lambda entry: entry.path), [])


def _put_list(store: Store, files: Sequence[TreeEntry], empty: Sequence[str]) -> StoredTree:
    document = {"format": FORMAT, "files": [asdict(entry) for entry in files], "empty_folders": list(empty)}
    content = canonical_json(document)
    digest = digest_of(content)
    if not store.claim(digest, len(content)):
        store.put(io.BytesIO(content))
    return StoredTree(digest=digest, size=sum(entry.size for entry in files), files=len(files))


def list_tree(store: Store, digest: str) -> tuple[TreeEntry, ...]:
    """The files of a stored folder, sorted by path.

    Raises:
        UnsafeTree: The list has names that must not be extracted, or is no list of files.
    """
    return _read_tree(store, digest)[0]


def get_tree(
    store: Store,
    digest: str,
    folder: Path,
    *,
    max_entries: int = MAX_ENTRIES,
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> None:
    """Restore a stored folder into `folder`, which must be absent or empty.

    Raises:
        UnsafeTree: The tree names a path outside the folder, or is beyond the limits. Nothing is written then.
        ObjectMissing: The store lacks a file of it.
        DigestMismatch: A file is damaged.
        ArtifactError: The folder cannot be written, or has something in it.
    """
    files, empty = _read_tree(store, digest)
    total = sum(entry.size for entry in files)
    if len(files) + len(empty) > max_entries or total > max_bytes:
        raise UnsafeTree(
            f"The stored folder {digest} has {len(files) + len(empty)} entries and {total} bytes, beyond the limits of "
            f"{max_entries} entries and {max_bytes} bytes. It is not extracted; raise the limits if you trust it."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ArtifactError(f"The folder {folder} is not empty. Name a new folder to restore {digest} into.")
        for parent in sorted({str(PurePosixPath(entry.path).parent) for entry in files} | set(empty)):
            (folder / parent).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda entry: _get_file(store, entry, folder, progress), files))
    except OSError as error:
        raise ArtifactError(
            f"The stored folder {digest} cannot be restored into {folder}: {error.strerror or error}. "
            "Check the folder's rights and free space."
        ) from error


def zip_tree(store: Store, digest: str, sink: BinaryIO, *, progress: Progress | None = None) -> None:
    """Write a stored folder as a zip, file by file. The same tree gives the same bytes."""
    files, empty = _read_tree(store, digest)
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in empty:
            info = zipfile.ZipInfo(f"{path}/", _ZIP_DATE)
            info.external_attr = (stat.S_IFDIR | 0o755) << 16
            archive.writestr(info, b"")
        for entry in files:
            info = zipfile.ZipInfo(entry.path, _ZIP_DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | (0o755 if entry.executable else 0o644)) << 16
            info.file_size = entry.size  # decides whether the 64-bit form is needed
            with store.open(entry.digest, progress=progress) as source, archive.open(info, "w") as target:
                copy_bytes(source, cast(BinaryIO, target), progress)


def _walk(root: Path, folder: Path, chain: tuple[Path, ...]) -> Iterator[tuple[str, Path | None]]:
    """Path and source of each file; an empty folder has no source. `chain` holds the real folders on the way."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    if not names and folder != root:
        yield _tree_path(root, folder), None
    for name in names:
        path = folder / name
        real = _follow(root, path) if path.is_symlink() else chain[-1] / name
        kind = real.stat().st_mode
        if stat.S_ISDIR(kind):
            if real in chain:
                raise UnsafeTree(f"The link {path} leads back to a folder it lies in. Remove it.")
            yield from _walk(root, path, (*chain, real))
        elif stat.S_ISREG(kind):
            yield _tree_path(root, path), real
        else:
            raise UnsafeTree(f"{path} is neither a file nor a folder. Remove it: sockets and devices cannot be stored.")


def _follow(root: Path, link: Path) -> Path:
    try:
        real = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UnsafeTree(f"The link {link} leads nowhere. Remove it.") from error
    if not real.is_relative_to(root):
        raise UnsafeTree(f"The link {link} leaves the folder {root}. Replace it by a copy of {real}.")
    return real


def _tree_path(root: Path, path: Path) -> str:
    name = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnsafeTree(f"The name of {path!r} is no Unicode. Rename it.") from None
    return name


def _put_file(store: Store, path: str, source: Path) -> TreeEntry:
    try:
        with source.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            size = status.st_size
            if not store.claim(digest, size):
                file.seek(0)
                stored = store.put(file)  # its digest counts: the file may have changed since
                digest, size = stored.digest, stored.size
    except OSError as error:
        raise ArtifactError(f"{source} cannot be read: {error.strerror or error}. Check its rights.") from error
    return TreeEntry(path=path, digest=digest, size=size, executable=bool(status.st_mode & stat.S_IXUSR))


def _get_file(store: Store, entry: TreeEntry, folder: Path, progress: Progress | None) -> None:
    with store.open(entry.digest, progress=progress) as source, (folder / entry.path).open("xb") as target:
        size = source.seek(0, os.SEEK_END)
        if size != entry.size:  # the limits were checked with the size that the tree names
            raise UnsafeTree(f"The stored folder says that {entry.path!r} has {entry.size} bytes; it has {size}.")
        source.seek(0)
        copy_bytes(source, target, progress)
        if entry.executable:
            mode = os.fstat(target.fileno()).st_mode
            os.fchmod(target.fileno(), mode | (mode & 0o444) >> 2)


def _read_tree(store: Store, digest: str) -> tuple[tuple[TreeEntry, ...], tuple[str, ...]]:
    with store.open(digest) as file:
        content = file.read()
    try:
        document = json.loads(content)
        version = document["format"]
        files = tuple(_read_entry(entry) for entry in document["files"]) if version == FORMAT else ()
        empty = tuple(str(path) for path in document.get("empty_folders", ()))
    except (ValueError, KeyError, TypeError) as error:
        raise UnsafeTree(
            f"The object {digest} is no list of files: {error}. Name the digest of a stored folder."
        ) from None
    if version != FORMAT:
        raise UnsafeTree(f"The stored folder {digest} has format {version}. Upgrade chapkit-flows to read it.")
    _check_paths([entry.path for entry in files], empty)
    return files, empty


def _read_entry(entry: Any) -> TreeEntry:
    if not (isinstance(entry["path"], str) and type(entry["size"]) is int and entry["size"] >= 0):
        raise ValueError(f"{entry!r} is no entry")
    return TreeEntry(
        path=entry["path"],
        digest=str(entry["digest"]),
        size=entry["size"],
        executable=bool(entry["executable"]),
    )


def _check_paths(files: Sequence[str], empty: Sequence[str]) -> None:
    """Refuse what would leave the folder, or would be one name on some other computer's disk."""
    folders = {str(parent) for path in (*files, *empty) for parent in PurePosixPath(path).parents} - {"."}
    seen: dict[str, str] = {}
    for path in (*files, *empty):
        _check_path(path)
    for path in (*files, *sorted(folders | set(empty))):
        same = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        if same in seen:
            raise UnsafeTree(
                f"The paths {seen[same]!r} and {path!r} of a folder would be one file on some disks. Rename one."
            )
        seen[same] = path


def _check_path(path: str) -> None:
    parts = path.split("/")
    if (
        not all(parts)
        or {".", ".."} & set(parts)
        or re.match(r"[A-Za-z]:", path)
        or re.search(r"[\\\x00-\x1f\x7f]", path)
    ):
        raise UnsafeTree(
            f"{path!r} is no path inside a folder: it is empty, absolute, has '..', a drive letter, a backslash or a "
            "control character. Rename the file; a stored folder with such a path is not extracted."
        )
