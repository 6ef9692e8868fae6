"""The trash: which artifacts somebody deleted and why, and which of them came back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import ColumnElement, and_, insert, or_, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import ArtifactDeleted
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Deletion
from chapkit_flows.lineage.query import get_artifact
from chapkit_flows.lineage.rows import to_artifact
from chapkit_flows.lineage.tables import ArtifactRow, DeletionRow
from chapkit_flows.refs import ArtifactRef

_BATCH = 500


def get_usable(database: Database, artifact_id: str) -> ArtifactRef:
    """The artifact with that id, for its bytes to be read.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: There is none.
        ArtifactDeleted: It is in the trash, or its bytes are gone.
    """
    artifact = get_artifact(database, artifact_id)
    deletion = find_deletion(database, artifact.id)
    if deletion is None:
        return artifact
    gone = (
        f"Its bytes were given up at {deletion.swept_at:%Y-%m-%d %H:%M} UTC; restore them from a backup."
        if deletion.swept_at
        else f"Bring it back with: chapkit-flows artifacts restore {artifact.id}"
    )
    raise ArtifactDeleted(
        f"The {artifact.kind.replace('_', ' ')} {artifact.id} was deleted at {deletion.deleted_at:%Y-%m-%d %H:%M} UTC "
        f"by {deletion.actor}: {deletion.reason}. {gone}"
    )


def find_deletion(database: Database, artifact_id: str) -> Deletion | None:
    """How an artifact came into the trash; None if it is not there."""
    with database.read() as session:
        row = session.scalars(
            select(DeletionRow)
            .where(col(DeletionRow.artifact_id) == artifact_id, col(DeletionRow.restored_at).is_(None))
            .order_by(col(DeletionRow.id).desc())
            .limit(1)
        ).first()
        return None if row is None else _to_deletion(row)


def record_deletions(database: Database, deletions: Sequence[Deletion]) -> int:
    """Record in one transaction that artifacts were deleted; those that are in the trash already stay as they are.

    Returns:
        How many were not in the trash.
    """

    def work(session: Session) -> int:
        ids = [deletion.id for deletion in deletions]
        known = set(session.scalars(select(col(DeletionRow.id)).where(col(DeletionRow.id).in_(ids))))
        missing = [asdict(deletion) for deletion in deletions if deletion.id not in known]
        if missing:
            session.execute(insert(DeletionRow), missing)
        return len(missing)

    return database.transact(work)


def in_trash(database: Database, artifact_ids: Collection[str]) -> dict[str, Deletion]:
    """The open deletions of some artifacts, by artifact."""
    wanted = sorted(artifact_ids)
    found: dict[str, Deletion] = {}
    with database.read() as session:
        for start in range(0, len(wanted), _BATCH):
            some = wanted[start : start + _BATCH]
            query = select(DeletionRow).where(
                col(DeletionRow.artifact_id).in_(some), col(DeletionRow.restored_at).is_(None)
            )
            found |= {row.artifact_id: _to_deletion(row) for row in session.scalars(query)}
    return found


def list_deletions(database: Database, *, limit: int = 50, before: str | None = None) -> list[Deletion]:
    """What is in the trash, the last deleted first."""
    query = select(DeletionRow).where(col(DeletionRow.restored_at).is_(None))
    if before is not None:
        query = query.where(col(DeletionRow.id) < before)
    with database.read() as session:
        return list(map(_to_deletion, session.scalars(query.order_by(col(DeletionRow.id).desc()).limit(limit))))


def close_deletions(session: Session, artifact_ids: Collection[str], *, actor: str, moment: datetime) -> None:
    """Take artifacts out of the trash, whoever put them there."""
    session.execute(
        update(DeletionRow)
        .where(col(DeletionRow.artifact_id).in_(artifact_ids), col(DeletionRow.restored_at).is_(None))
        .values(restored_at=moment, restored_by=actor)
        .execution_options(synchronize_session=False)
    )


def mark_swept(database: Database, deletion_ids: Collection[str], *, moment: datetime) -> None:
    """Record that the bytes behind some deletions are given up; done before the first of them goes."""
    wanted = sorted(deletion_ids)

    def work(session: Session) -> None:
        for start in range(0, len(wanted), _BATCH):
            session.execute(
                update(DeletionRow)
                .where(col(DeletionRow.id).in_(wanted[start : start + _BATCH]), col(DeletionRow.restored_at).is_(None))
                .values(swept_at=moment)
                .execution_options(synchronize_session=False)
            )

    if wanted:
        database.transact(work)


def live_objects(database: Database, *, deleted_before: datetime) -> Iterator[tuple[str, str]]:
    """Digest and codec of every artifact whose bytes must stay: it is not in the trash, or not for long enough.

    Args:
        database: To read, in one state.
        deleted_before: What came into the trash before this moment is given up.
    """
    query = select(col(ArtifactRow.digest), col(ArtifactRow.codec)).where(
        ~select(DeletionRow).where(_given_up(deleted_before)).exists()
    )
    with database.read() as session:
        yield from (tuple(row) for row in session.execute(query.execution_options(yield_per=10_000)))


def expired_deletions(database: Database, *, deleted_before: datetime) -> Iterator[tuple[ArtifactRef, Deletion]]:
    """What has been in the trash for longer than is kept, and whose bytes have not been given up yet."""
    query = (
        select(ArtifactRow, DeletionRow)
        .join(DeletionRow, _given_up(deleted_before))
        .where(col(DeletionRow.swept_at).is_(None))
    )
    with database.read() as session:
        for artifact, deletion in session.execute(query.execution_options(yield_per=1000)):
            yield to_artifact(artifact), _to_deletion(deletion)


def _given_up(deleted_before: datetime) -> ColumnElement[bool]:
    return and_(
        col(DeletionRow.artifact_id) == col(ArtifactRow.id),
        col(DeletionRow.restored_at).is_(None),
        # What was given up once may be gone, whatever the retention is today.
        or_(col(DeletionRow.deleted_at) <= deleted_before, col(DeletionRow.swept_at).is_not(None)),
    )


def _to_deletion(row: DeletionRow) -> Deletion:
    return Deletion(
        id=row.id,
        artifact_id=row.artifact_id,
        actor=row.actor,
        reason=row.reason,
        deleted_at=row.deleted_at,
        restored_at=row.restored_at,
        restored_by=row.restored_by,
        swept_at=row.swept_at,
    )
