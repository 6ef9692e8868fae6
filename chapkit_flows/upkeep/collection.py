"""Garbage collection: which objects nobody needs, why, and their removal.

The one rule. An object lives if

1. an artifact that is not in the trash names it, or one that came there less than `retention` ago; or
2. a folder that lives so lists it as a file; or
3. it was written or claimed less than `grace` ago; or
4. it was written or claimed after the start of a run that is still recorded as running, and that began less than
   `lease` ago: the run may be about to record it.

Everything else is dead, and with it the notes of the folds of backtests, and of the places of trainings, that it was
the result of: such work is done again when it is asked for. Whoever stores bytes that are there already claims them: an
object that is older than a day then counts as new, under a lock against its removal (on a disk) or behind the
announcement of the sweep (elsewhere).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain

from chapkit_flows.artifacts.backends import RENEW_SECONDS
from chapkit_flows.artifacts.codecs import is_folder
from chapkit_flows.artifacts.manifests import FOLDS, PLACES
from chapkit_flows.artifacts.store import Store, Sweep
from chapkit_flows.artifacts.trees import TreeEntry, list_tree
from chapkit_flows.errors import DigestMismatch, ObjectMissing, UpkeepError
from chapkit_flows.lineage.deletions import expired_deletions, in_trash, live_objects, mark_swept
from chapkit_flows.lineage.facts import Deletion
from chapkit_flows.lineage.query import get_artifact, list_artifacts, oldest_running, scan_artifacts
from chapkit_flows.refs import ArtifactRef, now
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.trash import FOLDER

_ORPHAN = "no artifact names it: its run died before it recorded what it had stored, or lost it to a retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long things are kept that nobody needs.

    Attributes:
        retention: In the trash.
        grace: After the last write or claim of an object.
        lease: The longest a run may take before it stops to protect what it has stored.
    """

    retention: timedelta = timedelta(days=30)
    grace: timedelta = timedelta(days=7)
    lease: timedelta = timedelta(days=30)

    def __post_init__(self) -> None:
        least = 2 * timedelta(seconds=RENEW_SECONDS)
        if self.grace < least:
            raise UpkeepError(
                f"A grace period of {self.grace} is too short: writers count on objects to stay for a day after they "
                f"have seen them. Give {least.days} days or more."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """An object that nobody needs, and why."""

    digest: str
    size: int
    modified: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection found, and, unless it only looked, removed.

    Attributes:
        live: Objects that somebody needs.
        spared: Objects that nobody needs and that are too young to go.
        dead: Objects that nobody needs.
        removed: How many of them are gone.
        unfinished: Files of dead processes that were removed.
        folds: Notes of folds and of places that were removed, as the forecasts and models that they name are gone.
    """

    live: int
    spared: int
    dead: tuple[Dead, ...]
    removed: int = 0
    unfinished: int = 0
    folds: int = 0

    @property
    def bytes(self) -> int:
        """The size of all dead objects."""
        return sum(one.size for one in self.dead)


def find_dead(resources: Resources, policy: Policy) -> Collected:
    """Look for objects that nobody needs; change nothing.

    Raises:
        UpkeepError: The list of files of a folder that lives is missing, so that its files cannot be told.
    """
    return _find_dead(resources, policy, now())


def collect(resources: Resources, policy: Policy) -> Collected:
    """Remove the objects that nobody needs.

    A crash at any point leaves objects that the next collection removes, never a row whose bytes are missing without
    saying so.

    Raises:
        UpkeepError: The list of files of a folder that lives is missing, so that its files cannot be told.
        StoreUnavailable: The store cannot be written.
    """
    moment = now()
    found = _find_dead(resources, policy, moment)
    _give_up(resources, moment - policy.retention, moment)
    with resources.store.sweep() as sweep:
        cutoff = _cutoff(resources, policy, moment)
        removed = sum(sweep.remove(one.digest, unused_since=cutoff) for one in found.dead)
        unfinished = sweep.remove_unfinished(unused_since=moment - policy.grace)
        folds = _forget_folds(resources.store, sweep, cutoff) if removed else 0
    return replace(found, removed=removed, unfinished=unfinished, folds=folds)


def _forget_folds(store: Store, sweep: Sweep, cutoff: datetime) -> int:
    """Remove the notes that say which folds of backtests are done, and for which places a model is trained, where what
    was done is gone; how many there were.
    """
    gone = 0
    for name in chain.from_iterable(map(store.manifest_names, (FOLDS, PLACES))):
        try:
            digest = str(store.read_manifest(name)["saved"]["digest"])
            is_there = store.has(digest)
        except (ObjectMissing, DigestMismatch, KeyError, TypeError, ValueError):
            is_there = False  # removed meanwhile, or damaged: nobody can find a fold by it
        gone += not is_there and sweep.remove_manifest(name, unused_since=cutoff)
    return gone


def _find_dead(resources: Resources, policy: Policy, moment: datetime) -> Collected:
    # Cutoff, then marks, then listing: what is stored or claimed meanwhile is younger than the cutoff.
    cutoff = _cutoff(resources, policy, moment)
    marked = mark(resources, deleted_before=moment - policy.retention)
    reasons = {
        artifact.digest: f"{artifact.id} was deleted by {deletion.actor}: {deletion.reason}"
        for artifact, deletion in expired_deletions(resources.database, deleted_before=moment - policy.retention)
    }
    live, spared, dead = 0, 0, []
    for shard in range(256):
        for entry in resources.store.objects(shard):
            if bytes.fromhex(entry.digest[7:]) in marked:
                live += 1
            elif entry.modified > cutoff:
                spared += 1
            else:
                reason = reasons.get(entry.digest, _ORPHAN)
                dead.append(Dead(digest=entry.digest, size=entry.size, modified=entry.modified, reason=reason))
    return Collected(live=live, spared=spared, dead=tuple(dead))


def _give_up(resources: Resources, deleted_before: datetime, moment: datetime) -> None:
    """Say of what has been in the trash for long enough that its bytes may be gone, before they are."""
    expired = [deletion for _, deletion in expired_deletions(resources.database, deleted_before=deleted_before)]
    for deletion in expired:
        document = replace(deletion, swept_at=moment).to_dict()
        resources.store.write_manifest(f"{FOLDER}/{deletion.id}", document)
    mark_swept(resources.database, [deletion.id for deletion in expired], moment=moment)


def mark(resources: Resources, *, deleted_before: datetime) -> set[bytes]:
    """The digests of all objects that artifacts need, 32 bytes each.

    Raises:
        UpkeepError: The list of files of a folder that lives is missing or damaged.
    """
    marked: set[bytes] = set()
    folders: set[bytes] = set()
    for digest, codec in live_objects(resources.database, deleted_before=deleted_before):
        (folders if is_folder(codec) else marked).add(bytes.fromhex(digest[7:]))
    for folder in folders:
        marked.update(bytes.fromhex(entry.digest[7:]) for entry in _files(resources.store, f"sha256:{folder.hex()}"))
    marked |= folders
    return marked


def explain(resources: Resources, artifact_id: str, policy: Policy) -> list[str]:
    """Why the bytes of an artifact live, or why they may go: one sentence for each part of the rule that speaks.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: There is none.
    """
    artifact = get_artifact(resources.database, artifact_id)
    same = list_artifacts(resources.database, digest=artifact.digest, limit=1000)
    deletions = in_trash(resources.database, {one.id for one in same})
    moment = now()
    lines = [_explain_artifact(one, deletions.get(one.id), moment - policy.retention) for one in same]
    lines += [
        f"lives: the folder {one.id} lists it as {path}"
        for one, path in _folders_with(resources, artifact.digest, moment - policy.retention)
    ]
    shard = resources.store.objects(int(artifact.digest[7:9], 16))
    entry = next((one for one in shard if one.digest == artifact.digest), None)
    if entry is None:
        return [*lines, "its bytes are not in the store"]
    if entry.modified > moment - policy.grace:
        lines.append(f"lives: written or claimed at {entry.modified:%Y-%m-%d %H:%M} UTC, within the grace period")
    elif entry.modified > _cutoff(resources, policy, moment):
        lines.append("lives: written or claimed after the start of a run that is still running")
    return lines


def _explain_artifact(artifact: ArtifactRef, deletion: Deletion | None, deleted_before: datetime) -> str:
    name = f"the {artifact.kind.replace('_', ' ')} {artifact.id}"
    if deletion is None:
        return f"lives: {name} names it"
    because = f"{name} was deleted at {deletion.deleted_at:%Y-%m-%d %H:%M} UTC by {deletion.actor}: {deletion.reason}"
    return f"lives for now: {because}" if deletion.deleted_at > deleted_before else f"may go: {because}"


def _folders_with(resources: Resources, digest: str, deleted_before: datetime) -> Iterator[tuple[ArtifactRef, str]]:
    for artifact in scan_artifacts(resources.database):
        if not is_folder(artifact.codec):
            continue
        deletion = in_trash(resources.database, {artifact.id}).get(artifact.id)
        if deletion is None or deletion.deleted_at > deleted_before:
            for entry in _files(resources.store, artifact.digest):
                if entry.digest == digest:
                    yield artifact, entry.path


def _cutoff(resources: Resources, policy: Policy, moment: datetime) -> datetime:
    """What was written or claimed after this moment stays."""
    running = oldest_running(resources.database, since=moment - policy.lease)
    # A run may have seen an object that was almost old enough to be renewed.
    protected = running - timedelta(seconds=RENEW_SECONDS) if running else moment
    return min(moment - policy.grace, protected)


def _files(store: Store, folder: str) -> tuple[TreeEntry, ...]:
    try:
        return list_tree(store, folder)
    except (ObjectMissing, DigestMismatch) as error:
        raise UpkeepError(
            f"The list of files of the folder {folder} cannot be read, so nobody can tell which objects it needs, and "
            f"nothing is removed: {error} Look with: chapkit-flows fsck"
        ) from error
