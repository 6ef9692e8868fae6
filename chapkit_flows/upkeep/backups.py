"""Backups: a store of their own with the objects, the manifests, and a dump of the database for each backup."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from chapkit_flows.artifacts.codecs import is_folder
from chapkit_flows.artifacts.store import Store
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.artifacts.watching import watch, watched_pool
from chapkit_flows.errors import BackupNotFound, DigestMismatch, ObjectMissing
from chapkit_flows.experiments import EXPERIMENTS
from chapkit_flows.lineage.configs import MANIFESTS
from chapkit_flows.lineage.dump import dump, load_dump
from chapkit_flows.refs import new_id, now
from chapkit_flows.registry import REGISTRY
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.annotations import ANNOTATIONS
from chapkit_flows.upkeep.trash import FOLDER

FORMAT = 1
_THREADS = 4
_COPIED = ("artifacts", "runs", MANIFESTS, REGISTRY, EXPERIMENTS, FOLDER, ANNOTATIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """One state of the database, with all bytes that its artifacts need.

    Attributes:
        dump: Digest of the dump, in the backup's own store.
        rows: Of the database.
        objects: How many objects the artifacts need.
        copied: How many of them were not in the backup store yet, and their bytes.
        missing: Objects that the source did not have, or not whole.
    """

    id: str
    dump: str
    rows: int
    objects: int
    copied: int
    copied_bytes: int
    missing: tuple[str, ...] = ()
    created_at: datetime = field(default_factory=now)


@dataclass(kw_only=True)
class _Needs:
    """What a dump says about the store."""

    rows: int = 0
    artifacts: dict[str, tuple[str, str]] = field(default_factory=dict)
    swept: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)

    def note(self, line: str) -> None:
        document = json.loads(line)
        row = document.get("row", {})
        match document.get("table"):
            case "lineage_artifact":
                self.artifacts[row["id"]] = (row["digest"], row["codec"])
            case "lineage_deletion" if row["swept_at"] and not row["restored_at"]:
                self.swept.add(row["artifact_id"])
            case "lineage_run" if row["status"] != "completed":
                self.unfinished.add(row["id"])
        self.rows += "row" in document

    def objects(self) -> dict[str, str]:
        """The codec of each digest that an artifact needs whose bytes were not given up."""
        return {digest: codec for key, (digest, codec) in self.artifacts.items() if key not in self.swept}


def backup(resources: Resources, target: Store) -> Backup:
    """Write a backup. Runs may go on meanwhile; what an earlier backup has brought to `target` is not copied again.

    Raises:
        StoreUnavailable: One of the stores cannot be used.
        LineageError: The database cannot be read.
    """
    needs = _Needs()
    # The rows first: their bytes are in the store already, whatever is recorded meanwhile.
    digest = _write_dump(resources, target, needs)
    copier = _Copier(source=resources.store, target=target)
    copier.copy_objects(needs.objects())
    # A run that had not ended well at the last backup may have been retried since.
    changed = needs.unfinished | _read_unfinished(target)
    copier.copy_manifests(again={f"runs/{run_id}" for run_id in changed})
    made = Backup(
        id=new_id(),
        dump=digest,
        rows=needs.rows,
        objects=copier.objects,
        copied=copier.copied,
        copied_bytes=copier.copied_bytes,
        missing=tuple(sorted(copier.missing)),
    )
    document = {"format": FORMAT, **asdict(made), "created_at": made.created_at.isoformat()}
    target.write_manifest(f"backups/{made.id}", document | {"unfinished": sorted(needs.unfinished)})
    return made


def _read_unfinished(target: Store) -> set[str]:
    """The runs that had not completed at the last backup; none if it is damaged, or of a version that did not say."""
    known = list_backups(target)
    try:
        return set(target.read_manifest(f"backups/{known[-1]}").get("unfinished", ())) if known else set()
    except (DigestMismatch, ObjectMissing):
        return set()


def list_backups(source: Store) -> list[str]:
    """The ids of the backups in a store, oldest first."""
    return [name.removeprefix("backups/") for name in source.manifest_names("backups")]


def restore(source: Store, resources: Resources, *, backup_id: str | None = None) -> Backup:
    """Bring a backup back: its objects and manifests into the store, then its rows into the empty database.

    Args:
        source: The store that `backup` wrote to.
        resources: Where to; another kind of database and of storage than it came from will do.
        backup_id: None for the newest.

    Raises:
        BackupNotFound: There is none, or none with that id.
        NotEmpty: The database has runs.
        StoreUnavailable: One of the stores cannot be used.
    """
    known = list_backups(source)
    wanted = backup_id or (known[-1] if known else "")
    if wanted not in known:
        raise BackupNotFound(
            f"{source.url} has no backup {wanted or 'at all'}. "
            + (f"There are: {', '.join(known[-5:])}." if known else "Make one with: chapkit-flows backup TO")
        )
    found = _read_backup(source.read_manifest(f"backups/{wanted}"))
    needs = _Needs()
    for line in _read_dump(source, found.dump):
        needs.note(line)
    copier = _Copier(source=source, target=resources.store)
    copier.copy_objects(needs.objects())
    copier.copy_manifests(again=set())
    load_dump(resources.database, _read_dump(source, found.dump))
    return found


def _read_backup(document: Mapping[str, Any]) -> Backup:
    values = {name: document[name] for name in Backup.__dataclass_fields__}
    return Backup(
        **(
            values
            | {"missing": tuple(document["missing"]), "created_at": datetime.fromisoformat(document["created_at"])}
        )
    )


def _write_dump(resources: Resources, target: Store, needs: _Needs) -> str:
    # Equal databases give equal bytes: no time in the head of the file.
    with target.writer() as sink, gzip.GzipFile(fileobj=sink, mode="wb", mtime=0, compresslevel=6) as packed:
        for line in dump(resources.database):
            needs.note(line)
            packed.write(line.encode() + b"\n")
    return sink.stored.digest


def _read_dump(source: Store, digest: str) -> Iterator[str]:
    with source.open(digest) as file, gzip.GzipFile(fileobj=file) as packed:
        yield from io.TextIOWrapper(packed, encoding="utf-8")


@dataclass(kw_only=True)
class _Copier:
    """Copies what one store has and another lacks."""

    source: Store
    target: Store
    objects: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: set[str] = field(default_factory=set)

    def copy_objects(self, wanted: Mapping[str, str]) -> None:
        """Copy objects, and the files of folders before the lists that name them."""
        folders = [digest for digest, codec in wanted.items() if is_folder(codec)]
        plain = {digest for digest, codec in wanted.items() if not is_folder(codec)}
        for folder in folders:
            try:
                plain.update(entry.digest for entry in list_tree(self.source, folder))
            except (ObjectMissing, DigestMismatch):
                self.missing.add(folder)
        whole = [folder for folder in folders if folder not in self.missing]
        for digests in (plain, whole):
            with watch(), watched_pool(_THREADS) as pool:
                for digest, size in zip(digests, pool.map(self._copy, digests), strict=True):
                    self._count(digest, size)

    def copy_manifests(self, *, again: set[str]) -> None:
        """Copy the manifests that the target lacks, and those that may have changed: of the trash, of tags, `again`."""
        for folder in _COPIED:
            there = set(self.target.manifest_names(folder)) - again
            names = self.source.manifest_names(folder)
            if folder not in (FOLDER, ANNOTATIONS):
                names = [name for name in names if name not in there]
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(self._copy_manifest, names))

    def _copy(self, digest: str) -> int | None:
        """The bytes that were copied, 0 if they were there; None if the source lacks them."""
        try:
            size = self.source.size(digest)
            if size is not None and self.target.claim(digest, size):
                return 0
            with self.source.open(digest) as file:
                return self.target.put(file).size
        except (ObjectMissing, DigestMismatch):
            return None

    def _count(self, digest: str, size: int | None) -> None:
        self.objects += 1
        if size is None:
            self.missing.add(digest)
        elif size:
            self.copied += 1
            self.copied_bytes += size

    def _copy_manifest(self, name: str) -> None:
        self.target.write_manifest(name, self.source.read_manifest(name))
