"""Do rows, manifests and bytes agree? Findings only; what is wrong is mended by a restore or a new run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from chapkit_flows.artifacts.codecs import is_folder
from chapkit_flows.artifacts.store import object_path
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.errors import ArtifactError, DigestMismatch, ObjectMissing
from chapkit_flows.lineage.deletions import in_trash
from chapkit_flows.lineage.query import scan_artifacts
from chapkit_flows.refs import ArtifactRef, Diagnostic
from chapkit_flows.resources import Resources

_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to check.

    Attributes:
        read_bytes: Whether to read every object and compare its digest; else only that it is there, with its size.
        set_aside: Whether to move what is damaged out of the way, so that it can be stored again.
        share: Of the artifacts, from 0 to 1.
        after: The id of the artifact that a check before this one ended with.
        seed: Of the sample.
    """

    read_bytes: bool = False
    set_aside: bool = False
    share: float = 1.0
    after: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One artifact that was checked; no findings when all is well."""

    artifact: ArtifactRef
    findings: tuple[Diagnostic, ...]


def check(resources: Resources, scope: Scope) -> Iterator[Checked]:
    """Check artifacts one after the other, oldest first. Stop at any time, and go on after the last id.

    The codes of the findings: `object_missing`, `object_damaged`, `wrong_size`, `folder_damaged` (errors), and
    `manifest_missing` (a warning: the artifact could not be rebuilt without the database).

    Raises:
        StoreUnavailable: The store cannot be read.
        LineageError: The database cannot be read.
    """
    draw = random.Random(scope.seed)
    seen: set[str] = set()
    page: list[ArtifactRef] = []
    for artifact in scan_artifacts(resources.database, after=scope.after, page=_PAGE):
        if scope.share >= 1 or draw.random() < scope.share:
            page.append(artifact)
        if len(page) == _PAGE:
            yield from _check_page(resources, page, scope, seen)
            page = []
    yield from _check_page(resources, page, scope, seen)


def _check_page(resources: Resources, page: list[ArtifactRef], scope: Scope, seen: set[str]) -> Iterator[Checked]:
    deleted = in_trash(resources.database, {artifact.id for artifact in page})
    for artifact in page:
        deletion = deleted.get(artifact.id)
        if deletion is not None and deletion.swept_at is not None:
            yield Checked(artifact=artifact, findings=())
            continue
        yield Checked(artifact=artifact, findings=tuple(_check_artifact(resources, artifact, scope, seen)))


def _check_artifact(resources: Resources, artifact: ArtifactRef, scope: Scope, seen: set[str]) -> Iterator[Diagnostic]:
    if is_folder(artifact.codec):
        yield from _check_folder(resources, artifact, scope, seen)
    else:
        yield from _check_object(resources, artifact.digest, artifact.size, scope, artifact.id)
    if not _has_manifest(resources, artifact):
        message = (
            f"{_name(artifact)} has no manifest beside its bytes: without the database it could not be found again."
        )
        yield Diagnostic.warning("manifest_missing", message, artifact.id)


def _check_folder(resources: Resources, artifact: ArtifactRef, scope: Scope, seen: set[str]) -> Iterator[Diagnostic]:
    try:
        files = list_tree(resources.store, artifact.digest)
    except ObjectMissing:
        message = f"{_name(artifact)}: the list of its files, {artifact.digest}, is not in the store."
        yield Diagnostic.error("object_missing", f"{message} {_REMEDY}", artifact.id)
        return
    except DigestMismatch as error:
        message = f"{_name(artifact)}: {_damage(resources, artifact.digest, error, scope)}"
        yield Diagnostic.error("folder_damaged", message, artifact.id)
        return
    except ArtifactError as error:
        yield Diagnostic.error("folder_damaged", f"{_name(artifact)}: {error}", artifact.id)
        return
    for entry in files:
        if entry.digest not in seen:
            found = list(_check_object(resources, entry.digest, entry.size, scope, artifact.id))
            yield from found
            if not found:
                seen.add(entry.digest)


def _check_object(resources: Resources, digest: str, size: int, scope: Scope, owner: str) -> Iterator[Diagnostic]:
    actual = resources.store.size(digest)
    if actual is None:
        message = f"The object {digest}, which {owner} needs, is not in the store. {_REMEDY}"
        yield Diagnostic.error("object_missing", message, owner)
    elif actual != size:
        message = f"The object {digest}, which {owner} needs, has {actual} bytes, not {size}. {_REMEDY}"
        yield Diagnostic.error("wrong_size", message, owner)
    elif scope.read_bytes:
        try:
            with resources.store.open(digest):
                pass  # opening reads all of it and compares the digest
        except DigestMismatch as error:
            yield Diagnostic.error("object_damaged", _damage(resources, digest, error, scope), owner)
        except ObjectMissing as error:
            yield Diagnostic.error("object_damaged", f"{error}", owner)


def _damage(resources: Resources, digest: str, error: DigestMismatch, scope: Scope) -> str:
    if not scope.set_aside:
        return str(error)
    resources.store.set_aside(digest)
    return (
        f"The damaged bytes of the object {digest} were moved to damaged/{digest[7:]}. Now a run that reads or makes "
        f"the same bytes again stores them, or copy {object_path(digest)} from a backup."
    )


def _has_manifest(resources: Resources, artifact: ArtifactRef) -> bool:
    with suppress(ObjectMissing, DigestMismatch):
        return resources.store.read_manifest(f"artifacts/{artifact.id}").get("digest") == artifact.digest
    return False


def _name(artifact: ArtifactRef) -> str:
    return f"The {artifact.kind.replace('_', ' ')} {artifact.id}"


_REMEDY = "Restore it from a backup, or make it again."
