"""Putting artifacts into the trash, and taking them out of it."""

from __future__ import annotations

from collections.abc import Sequence

from chapkit_flows.errors import UpkeepError
from chapkit_flows.lineage.deletions import close_deletions, in_trash, record_deletions
from chapkit_flows.lineage.facts import Deletion
from chapkit_flows.lineage.query import get_artifact
from chapkit_flows.refs import new_id, now
from chapkit_flows.resources import Resources

FOLDER = "deletions"


def delete(resources: Resources, artifact_ids: Sequence[str], *, actor: str, reason: str) -> tuple[Deletion, ...]:
    """Put artifacts into the trash, all in one transaction. Their bytes stay until `collect` gives them up.

    Returns:
        What was put there now; artifacts that are in the trash already stay as they are.

    Raises:
        InvalidId: Something is not an id.
        ArtifactNotFound: Some artifact does not exist; none is deleted then.
        UpkeepError: There is no reason.
    """
    if not reason.strip():
        raise UpkeepError("A deletion needs a reason: it is shown to whoever looks for the artifact later.")
    artifacts = [get_artifact(resources.database, artifact_id) for artifact_id in dict.fromkeys(artifact_ids)]
    known = in_trash(resources.database, {artifact.id for artifact in artifacts})
    made = tuple(
        Deletion(id=new_id(), artifact_id=artifact.id, actor=actor, reason=reason.strip())
        for artifact in artifacts
        if artifact.id not in known
    )
    for deletion in made:
        resources.store.write_manifest(f"{FOLDER}/{deletion.id}", deletion.to_dict())
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
    artifacts = {one: get_artifact(resources.database, one) for one in dict.fromkeys(artifact_ids)}
    found = in_trash(resources.database, {artifact.id for artifact in artifacts.values()})
    for artifact in artifacts.values():
        if artifact.id in found and not resources.store.claim(
            artifact.digest, _stored_size(resources, artifact.digest)
        ):
            raise UpkeepError(
                f"The bytes of {artifact.id} ({artifact.digest}) are gone; it cannot be taken out of the trash. "
                "Restore them from a backup first: chapkit-flows restore FROM"
            )
    if found:
        moment = now()
        for deletion in found.values():
            restored = deletion.to_dict() | {"restored_at": moment.isoformat(), "restored_by": actor, "swept_at": None}
            resources.store.write_manifest(f"{FOLDER}/{deletion.id}", restored)
        resources.database.transact(lambda session: close_deletions(session, list(found), actor=actor, moment=moment))
    return tuple(found)


def _stored_size(resources: Resources, digest: str) -> int:
    size = resources.store.size(digest)
    return -1 if size is None else size
