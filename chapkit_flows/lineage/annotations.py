"""Tags and notes on runs and artifacts, given after the fact: who said what, and when.

The history is only ever added to; the runs and artifacts themselves never change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import cast

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import LineageError
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Action, Annotation
from chapkit_flows.lineage.graph import find_end
from chapkit_flows.lineage.tables import AnnotationRow, TagRow
from chapkit_flows.refs import check_id, now

_OLDEST_FIRST = (col(AnnotationRow.created_at), col(AnnotationRow.id))
_KEY = re.compile(r"[\w.:/-]{1,64}")


def set_tags(database: Database, subject_id: str, tags: Mapping[str, str], *, by: str) -> dict[str, str]:
    """Set tags of a run or an artifact; those that stand with the same value already stay as they are.

    Args:
        database: To write.
        subject_id: Of a run or an artifact.
        tags: Values by key. Keys have at most 64 letters, digits and `. _ - : /`; values 255 characters.
        by: Who says so.

    Returns:
        All tags that stand now.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: Neither a run nor an artifact has that id.
        LineageError: A key has other characters; or as `Database.write` raises it.
    """
    for key in tags:
        if not _KEY.fullmatch(key):
            raise LineageError(f"{key!r} cannot be the key of a tag. Write at most 64 letters, digits and . _ - : /")
    return _change_tags(database, check_id(subject_id), tags, by)


def remove_tags(database: Database, subject_id: str, keys: Iterable[str], *, by: str) -> dict[str, str]:
    """Remove tags of a run or an artifact; keys that it does not have are passed over.

    Args:
        database: To write.
        subject_id: Of a run or an artifact.
        keys: Of the tags.
        by: Who says so.

    Returns:
        All tags that stand now.

    Raises:
        The errors of `set_tags`.
    """
    return _change_tags(database, check_id(subject_id), dict.fromkeys(keys), by)


def add_note(database: Database, subject_id: str, text: str, *, by: str) -> Annotation:
    """Write a note on a run or an artifact.

    Raises:
        The errors of `set_tags`; a LineageError if the note is empty.
    """
    if not text.strip():
        raise LineageError("The note is empty. Write what should be known.")
    note = _say(check_id(subject_id), "note", None, text, by)

    def work(session: Session) -> Annotation:
        find_end(session, note.subject_id)
        _record(session, [note])
        return note

    return database.transact(work)


def history(database: Database, subject_id: str) -> list[Annotation]:
    """All that was said of a run or an artifact, the oldest first.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: Neither a run nor an artifact has that id.
    """
    wanted = check_id(subject_id)
    query = select(AnnotationRow).where(col(AnnotationRow.subject_id) == wanted).order_by(*_OLDEST_FIRST)
    with database.read() as session:
        find_end(session, wanted)
        return [_to_annotation(row) for row in session.scalars(query)]


def load_tags(database: Database, subject_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """The tags that stand, by the id of each given run or artifact, in the order of their keys."""
    tags: dict[str, dict[str, str]] = {subject_id: {} for subject_id in subject_ids}
    query = select(TagRow).where(col(TagRow.subject_id).in_(tags)).order_by(col(TagRow.key))
    with database.read() as session:
        for row in session.scalars(query):
            tags[row.subject_id][row.key] = row.value
    return tags


def _change_tags(database: Database, subject_id: str, wanted: Mapping[str, str | None], by: str) -> dict[str, str]:
    """Set the keys that have a value, remove the others; history and standing tags change together."""

    def work(session: Session) -> dict[str, str]:
        # Who changes the tags of the same thing at the same time waits here.
        subject_type = find_end(session, subject_id, lock=True)
        mine = col(TagRow.subject_id) == subject_id
        standing = {row.key: row.value for row in session.scalars(select(TagRow).where(mine))}
        changed = {key: value for key, value in wanted.items() if standing.get(key) != value}
        if not changed:
            return dict(sorted(standing.items()))
        session.execute(delete(TagRow).where(mine, col(TagRow.key).in_(changed)))
        kept = {key: value for key, value in changed.items() if value is not None}
        if kept:
            common = {"subject_id": subject_id, "subject_type": subject_type}
            session.execute(insert(TagRow), [common | {"key": key, "value": value} for key, value in kept.items()])
        said = [
            _say(subject_id, "remove" if value is None else "set", key, value, by) for key, value in changed.items()
        ]
        _record(session, said)
        remaining = {key: value for key, value in standing.items() if key not in changed}
        return dict(sorted((remaining | kept).items()))

    return database.transact(work)


def restore_annotations(database: Database, subject_id: str, said: Sequence[Annotation]) -> int:
    """Record what was said of a run or an artifact as it was recorded before; what is there stays as it is.

    Args:
        database: To write.
        subject_id: Of the run or the artifact.
        said: The whole history, the oldest first.

    Returns:
        How much of it was not there.

    Raises:
        ArtifactNotFound: Neither a run nor an artifact has that id.
        LineageError: As `Database.write` raises it.
    """

    def work(session: Session) -> int:
        subject_type = find_end(session, subject_id, lock=True)
        mine = col(AnnotationRow.subject_id) == subject_id
        known = set(session.scalars(select(col(AnnotationRow.id)).where(mine)))
        missing = [annotation for annotation in said if annotation.id not in known]
        if not missing:
            return 0
        _record(session, missing)
        rows = session.scalars(select(AnnotationRow).where(mine).order_by(*_OLDEST_FIRST))
        last = {row.key: row.text for row in rows if row.key is not None}
        session.execute(delete(TagRow).where(col(TagRow.subject_id) == subject_id))
        common = {"subject_id": subject_id, "subject_type": subject_type}
        standing = [common | {"key": key, "value": value} for key, value in last.items() if value is not None]
        if standing:
            session.execute(insert(TagRow), standing)
        return len(missing)

    return database.transact(work)


def _say(subject_id: str, action: Action, key: str | None, text: str | None, by: str) -> Annotation:
    return Annotation(subject_id=subject_id, action=action, key=key, text=text, author=by, created_at=now())


def _record(session: Session, said: Iterable[Annotation]) -> None:
    session.execute(insert(AnnotationRow), [asdict(annotation) for annotation in said])


def _to_annotation(row: AnnotationRow) -> Annotation:
    return Annotation(
        id=row.id,
        subject_id=row.subject_id,
        action=cast(Action, row.action),
        key=row.key,
        text=row.text,
        author=row.author,
        created_at=row.created_at,
    )
