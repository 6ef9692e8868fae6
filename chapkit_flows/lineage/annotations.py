"""Tags and notes on runs and artifacts, given after the fact: who said what, and when.

The history is only ever added to; the runs and artifacts themselves never change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias, cast

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import LineageError
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Action, Annotation
from chapkit_flows.lineage.graph import find_end
from chapkit_flows.lineage.tables import AnnotationRow, ArtifactRow, RunRow, TagRow
from chapkit_flows.lineage.walks import End
from chapkit_flows.refs import check_id, now

_OLDEST_FIRST = (col(AnnotationRow.created_at), col(AnnotationRow.id))
_KEY = re.compile(r"[\w.:/-]{1,64}")

Keep: TypeAlias = Callable[[Sequence[Annotation]], None]


def set_tags(
    database: Database, subject_id: str, tags: Mapping[str, str], *, by: str, keep: Keep | None = None
) -> dict[str, str]:
    """Set tags of a run or an artifact; those that stand with the same value already stay as they are.

    Args:
        database: To write.
        subject_id: Of a run or an artifact.
        tags: Values by key. Keys have at most 64 letters, digits and `. _ - : /`; values 255 characters.
        by: Who says so.
        keep: Called with all that was said so far before it counts, while nobody else can say anything of the same
            thing. If it fails nothing is recorded.

    Returns:
        All tags that stand now.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: Neither a run nor an artifact has that id.
        LineageError: A key has other characters; or as `Database.write` raises it.
    """
    check_keys(tags)
    return _change_tags(database, check_id(subject_id), tags, by, keep)


def remove_tags(
    database: Database, subject_id: str, keys: Iterable[str], *, by: str, keep: Keep | None = None
) -> dict[str, str]:
    """Remove tags of a run or an artifact; keys that it does not have are passed over.

    Args:
        database: To write.
        subject_id: Of a run or an artifact.
        keys: Of the tags.
        by: Who says so.
        keep: As in `set_tags`.

    Returns:
        All tags that stand now.

    Raises:
        The errors of `set_tags`.
    """
    return _change_tags(database, check_id(subject_id), dict.fromkeys(keys), by, keep)


def add_note(database: Database, subject_id: str, text: str, *, by: str, keep: Keep | None = None) -> Annotation:
    """Write a note on a run or an artifact; `keep` as in `set_tags`.

    Raises:
        The errors of `set_tags`; a LineageError if the note is empty.
    """
    if not text.strip():
        raise LineageError("The note is empty. Write what should be known.")
    note = _say(check_id(subject_id), "note", None, text, by)

    def work(session: Session) -> Annotation:
        find_end(session, note.subject_id, lock=True)
        _record(session, [note])
        if keep is not None:
            keep(histories(session, [note.subject_id])[note.subject_id])
        return note

    return database.transact(work)


def history(database: Database, subject_id: str) -> list[Annotation]:
    """All that was said of a run or an artifact, the oldest first.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: Neither a run nor an artifact has that id.
    """
    wanted = check_id(subject_id)
    with database.read() as session:
        find_end(session, wanted)
        return histories(session, [wanted])[wanted]


def histories(session: Session, subject_ids: Iterable[str]) -> dict[str, list[Annotation]]:
    """All that was said of some runs or artifacts, the oldest first, by the id of each."""
    said: dict[str, list[Annotation]] = {subject_id: [] for subject_id in subject_ids}
    query = select(AnnotationRow).where(col(AnnotationRow.subject_id).in_(said)).order_by(*_OLDEST_FIRST)
    for row in session.scalars(query):
        said[row.subject_id].append(_to_annotation(row))
    return said


def load_tags(database: Database, subject_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """The tags that stand, by the id of each given run or artifact, in the order of their keys."""
    with database.read() as session:
        return _load_tags(session, subject_ids)


def _load_tags(session: Session, subject_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    tags: dict[str, dict[str, str]] = {subject_id: {} for subject_id in subject_ids}
    columns = (col(TagRow.subject_id), col(TagRow.key), col(TagRow.value))
    query = select(*columns).where(col(TagRow.subject_id).in_(tags)).order_by(col(TagRow.key))
    for subject_id, key, value in session.execute(query):
        tags[subject_id][key] = value
    return tags


def check_keys(keys: Iterable[str]) -> None:
    """Refuse what cannot be the key of a tag.

    Raises:
        LineageError: It has other characters, or too many.
    """
    for key in keys:
        if not _KEY.fullmatch(key):
            raise LineageError(f"{key!r} cannot be the key of a tag. Write at most 64 letters, digits and . _ - : /")


def _change_tags(
    database: Database, subject_id: str, wanted: Mapping[str, str | None], by: str, keep: Keep | None
) -> dict[str, str]:
    """Set the keys that have a value, remove the others; history and standing tags change together."""

    def work(session: Session) -> dict[str, str]:
        # Who changes the tags of the same thing at the same time waits here.
        subject_type = find_end(session, subject_id, lock=True)
        _change(session, {subject_id: subject_type}, wanted, by)
        if keep is not None:
            keep(histories(session, [subject_id])[subject_id])
        return _load_tags(session, [subject_id])[subject_id]

    return database.transact(work)


def change_tags(
    session: Session, subject_ids: Collection[str], subject_type: End, *, wanted: Mapping[str, str | None], by: str
) -> list[str]:
    """Set the keys that have a value, remove the others, of many runs or artifacts at once.

    Args:
        session: In a transaction.
        subject_ids: Of runs or artifacts that exist, all of one type.
        subject_type: What they are.
        wanted: Values by key; None for a tag to remove.
        by: Who says so.

    Returns:
        The ids of those whose tags were not so already.
    """
    table: Any = ArtifactRow if subject_type == "artifact" else RunRow
    # In one order, so that two writers never wait for each other.
    locked = select(col(table.id)).where(col(table.id).in_(subject_ids)).order_by(col(table.id)).with_for_update()
    return _change(session, dict.fromkeys(session.scalars(locked), subject_type), wanted, by)


def _change(session: Session, subjects: Mapping[str, End], wanted: Mapping[str, str | None], by: str) -> list[str]:
    standing = _load_tags(session, subjects)
    said = [
        _say(subject_id, "remove" if value is None else "set", key, value, by)
        for subject_id in subjects
        for key, value in wanted.items()
        if standing[subject_id].get(key) != value
    ]
    if not said:
        return []
    changed = list(dict.fromkeys(annotation.subject_id for annotation in said))
    session.execute(delete(TagRow).where(col(TagRow.subject_id).in_(changed), col(TagRow.key).in_(wanted)))
    kept = [
        {"subject_id": subject_id, "subject_type": subjects[subject_id], "key": key, "value": value}
        for subject_id in changed
        for key, value in wanted.items()
        if value is not None
    ]
    if kept:
        session.execute(insert(TagRow), kept)
    _record(session, said)
    return changed


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
