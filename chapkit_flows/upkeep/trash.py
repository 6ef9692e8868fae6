"""Putting artifacts into the trash, and taking them out of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from chapkit_flows.artifacts.codecs import is_folder
from chapkit_flows.artifacts.store import Store
from chapkit_flows.artifacts.trees import list_tree
from chapkit_flows.errors import UpkeepError
from chapkit_flows.lineage.deletions import close_deletions, in_trash, record_deletions
from chapkit_flows.lineage.facts import Deletion
from chapkit_flows.lineage.query import get_artifact
from chapkit_flows.refs import ArtifactRef, new_id, now
from chapkit_flows.resources import Resources

FOLDER = "deletions"
_THREADS = 4


def delete(resources: Resources, artifact_ids: Sequence[str], *, actor: str, reason: str) -> tuple[Deletion, ...]:
    """Put artifacts into the trash, all in one transaction. Their bytes stay until `collect` gives them up.

    Returns:
        What was put there now; artifacts that are in the trash already stay as they are.

    Raises:
        InvalidId: Something is not an id.
        ArtifactNotFound: Some artifact does not exist; none is deleted then.
        UpkeepError: There is no reason.
    """
    artifacts = [get_artifact(resources.database, artifact_id) for artifact_id in dict.fromkeys(artifact_ids)]
    return discard(resources, artifacts, actor=actor, reason=reason)


def discard(
    resources: Resources, artifacts: Collection[ArtifactRef], *, actor: str, reason: str
) -> tuple[Deletion, ...]:
    """As `delete`, of artifacts that were looked up already.

    Raises:
        UpkeepError: There is no reason.
    """
    if not reason.strip():
        raise UpkeepError("A deletion needs a reason: it is shown to whoever looks for the artifact later.")
    known = in_trash(resources.database, {artifact.id for artifact in artifacts})
    made = tuple(
        Deletion(id=new_id(), artifact_id=artifact.id, actor=actor, reason=reason.strip())
        for artifact in artifacts
        if artifact.id not in known
    )
    _write(resources.store, made)
    if made:
        record_deletions(resources.database, made)
    return made


def restore(resources: Resources, artifact_ids: Sequence[str], *, actor: str) -> tuple[str, ...]:
    """Take artifacts out of the trash, all in one transaction.

    Returns:
        The ids of those that were there.

    Raises:
        InvalidId: Something is not an id.
        ArtifactNotFound: Some artifact does not exist.
        UpkeepError: The bytes of one are gone; none is restored then.
    """
    artifacts = [get_artifact(resources.database, artifact_id) for artifact_id in dict.fromkeys(artifact_ids)]
    back, gone = bring_back(resources, artifacts, actor=actor, all_or_none=True)
    if gone:
        raise UpkeepError(
            f"The bytes of {gone[0].id} ({gone[0].digest}) are gone; it cannot be taken out of the trash. "
            "Restore them from a backup first: chapkit-flows restore FROM"
        )
    return tuple(artifact.id for artifact in back)


def bring_back(
    resources: Resources, artifacts: Collection[ArtifactRef], *, actor: str, all_or_none: bool = False
) -> tuple[list[ArtifactRef], list[ArtifactRef]]:
    """Take those artifacts out of the trash whose bytes are there, all in one transaction.

    Args:
        resources: To read and write.
        artifacts: That were looked up already; what is not in the trash is passed over.
        actor: Who does it.
        all_or_none: Leave all of them where they are if the bytes of one are gone.

    Returns:
        Those that are back, and those that stay because their bytes are gone.
    """
    found = in_trash(resources.database, {artifact.id for artifact in artifacts})
    wanted = [artifact for artifact in artifacts if artifact.id in found]
    with ThreadPoolExecutor(_THREADS) as pool:
        held = list(pool.map(lambda one: _hold(resources.store, one, found[one.id]), wanted))
    back = [artifact for artifact, whole in zip(wanted, held, strict=True) if whole]
    gone = [artifact for artifact, whole in zip(wanted, held, strict=True) if not whole]
    if not back or (gone and all_or_none):
        return [], gone
    moment = now()
    ids = [artifact.id for artifact in back]
    _write(resources.store, [replace(found[one], restored_at=moment, restored_by=actor, swept_at=None) for one in ids])
    resources.database.transact(lambda session: close_deletions(session, ids, actor=actor, moment=moment))
    return back, gone


def _write(store: Store, deletions: Iterable[Deletion]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda one: store.write_manifest(f"{FOLDER}/{one.id}", one.to_dict()), deletions))


def _hold(store: Store, artifact: ArtifactRef, deletion: Deletion) -> bool:
    """Whether the bytes are there and a sweep will leave them; of a folder whose bytes were given up, each file."""
    if not store.renew(artifact.digest):
        return False
    if deletion.swept_at is None or not is_folder(artifact.codec):
        return True
    return all(store.renew(entry.digest) for entry in list_tree(store, artifact.digest))
