"""The numbered history of named configs: which content each name has had, since when, by whom, and how it came.

A Prefect block keeps no history. Each step of the history is an entry: the content that a saved config has had, by
digest. A content that differs from the one before gets the next number; the same content that comes again in another
way (a run used it, then it was applied) is one more entry under the same number. Entries are only ever added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, TypeAlias, cast

from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import ConfigNotFound
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import ConfigEntry, ConfigHead, NewEntry, Origin
from chapkit_flows.lineage.tables import ConfigEntryRow, ConfigVersionRow, RunRow
from chapkit_flows.refs import ConfigRef, new_id

MANIFESTS = "configs"
"""The folder of the manifests that entries are made again from."""

Keep: TypeAlias = Callable[[ConfigEntry, dict[str, Any]], None]


def record_config(
    database: Database, ref: ConfigRef, new: NewEntry, *, keep: Keep | None = None
) -> tuple[ConfigEntry, bool]:
    """Record the content that a saved config has now.

    Args:
        database: To write.
        ref: The content, under the name of the saved config.
        new: How it came. Nothing is recorded if the last entry has the same content and came in the same way, or
            if that content was only seen (`run`, `ui`), not put there.
        keep: Called with a new entry and its `entry_document` before it counts. If it fails nothing is recorded.

    Returns:
        The entry that says so, and whether it is new.

    Raises:
        LineageError: As `Database.write` raises it.
    """
    return database.transact(lambda session: add_entry(session, ref, new, keep))


def add_entry(session: Session, ref: ConfigRef, new: NewEntry, keep: Keep | None = None) -> tuple[ConfigEntry, bool]:
    """As `record_config`, within a transaction. A config that was the last one before costs one statement."""
    assert ref.name is not None
    known, last = _load_last(session, ref)
    if last is not None and not _says(last, ref, new):
        # Writers of one name take turns; each then sees what the one before has added.
        session.execute(
            _entries_of(ref.block_type, ref.name).where(col(ConfigEntryRow.sequence) == 1).with_for_update()
        )
        known, last = _load_last(session, ref)
    if last is not None and _says(last, ref, new):
        return _to_entry(last), False
    if not known:
        insert_version(session, ref, first_used=new.created_at)
    entry = ConfigEntry(
        id=new_id(),
        block_type=ref.block_type,
        name=ref.name,
        sequence=last.sequence + 1 if last else 1,
        number=last.number + (last.digest != ref.digest) if last else 1,
        digest=ref.digest,
        **asdict(new),
    )
    # Of two first writers at once the second violates the unique sequence, and tries again.
    session.execute(insert(ConfigEntryRow), [asdict(entry)])
    if keep is not None:
        keep(entry, _document(session, entry))
    return entry, True


def _says(last: ConfigEntryRow, ref: ConfigRef, new: NewEntry) -> bool:
    """Whether the last entry says already what a new one would."""
    return last.digest == ref.digest and new.origin in (last.origin, "run", "ui")


def record_version(session: Session, ref: ConfigRef, *, first_used: datetime) -> None:
    """Keep the content of a config, named or not."""
    known = select(col(ConfigVersionRow.digest)).where(col(ConfigVersionRow.digest) == ref.digest)
    if session.scalar(known) is None:
        insert_version(session, ref, first_used=first_used)


def insert_version(session: Session, ref: ConfigRef, *, first_used: datetime) -> None:
    """Keep a content that is not there yet."""
    values = {
        "digest": ref.digest,
        "block_type": ref.block_type,
        "name": ref.name,
        "content": dict(ref.content),
        "created_at": first_used,
    }
    session.execute(insert(ConfigVersionRow), [values])


def last_applied(database: Database, block_type: str, name: str) -> ConfigEntry | None:
    """The content that was last applied from a file under a name; None if none was."""
    query = _entries_of(block_type, name).where(col(ConfigEntryRow.origin) == "apply")
    with database.read() as session:
        row = session.scalars(query.order_by(col(ConfigEntryRow.sequence).desc()).limit(1)).first()
        return None if row is None else _to_entry(row)


def config_history(database: Database, block_type: str, name: str) -> list[ConfigEntry]:
    """All entries of a name, the oldest first; empty if it has none."""
    with database.read() as session:
        rows = session.scalars(_entries_of(block_type, name).order_by(col(ConfigEntryRow.sequence)))
        return list(map(_to_entry, rows))


def get_version(database: Database, block_type: str, name: str, number: int) -> tuple[ConfigEntry, ConfigRef]:
    """How a numbered version first came, and its content.

    Raises:
        ConfigNotFound: The name has no such version; the message says which it has.
    """
    entries = config_history(database, block_type, name)
    found = next((entry for entry in entries if entry.number == number), None)
    if found is None:
        slug = f"{block_type}/{name}"
        if not entries:
            raise ConfigNotFound(f"{slug} has no recorded version. See what there is: chapkit-flows configs list")
        span = f"version {entries[-1].number}" if entries[-1].number == 1 else f"versions 1 to {entries[-1].number}"
        raise ConfigNotFound(
            f"There is no {slug}@{number}: it has {span}. See them with: chapkit-flows configs history {slug}"
        )
    return found, load_content(database, found)


def load_content(database: Database, entry: ConfigEntry) -> ConfigRef:
    """The content that an entry says a name has had."""
    with database.read() as session:
        row = session.get_one(ConfigVersionRow, entry.digest)
        return ConfigRef(digest=row.digest, block_type=row.block_type, name=entry.name, content=row.content)


def find_entry(database: Database, ref: ConfigRef, *, at: datetime) -> ConfigEntry | None:
    """The entry that stood for a named config when a run that used it began; None if its content was never saved."""
    if ref.name is None:
        return None
    entries = [entry for entry in config_history(database, ref.block_type, ref.name) if entry.digest == ref.digest]
    # Clocks of several computers differ: an entry may seem to be younger than the run that brought it.
    return next((entry for entry in reversed(entries) if entry.created_at <= at), entries[0] if entries else None)


def list_heads(database: Database, *, block_type: str | None = None) -> list[ConfigHead]:
    """The last entry of each name, with the number of runs that named it, by block type and name."""
    newest = select(
        col(ConfigEntryRow.block_type), col(ConfigEntryRow.name), func.max(col(ConfigEntryRow.sequence)).label("last")
    ).group_by(col(ConfigEntryRow.block_type), col(ConfigEntryRow.name))
    last = newest.subquery()
    query = select(ConfigEntryRow).join(
        last,
        (col(ConfigEntryRow.block_type) == last.c.block_type)
        & (col(ConfigEntryRow.name) == last.c.name)
        & (col(ConfigEntryRow.sequence) == last.c.last),
    )
    if block_type is not None:
        query = query.where(col(ConfigEntryRow.block_type) == block_type)
    used = (
        select(col(ConfigVersionRow.block_type), col(RunRow.config_name), func.count())
        .join(ConfigVersionRow, col(ConfigVersionRow.digest) == col(RunRow.config_digest))
        .where(col(RunRow.config_name).is_not(None))
        .group_by(col(ConfigVersionRow.block_type), col(RunRow.config_name))
    )
    with database.read() as session:
        runs = {(kind, name): count for kind, name, count in session.execute(used)}
        entries = [_to_entry(row) for row in session.scalars(query)]
    heads = [ConfigHead(entry=entry, runs=runs.get((entry.block_type, entry.name), 0)) for entry in entries]
    return sorted(heads, key=lambda head: (head.entry.block_type, head.entry.name))


def find_versions(database: Database, digest_prefix: str, *, limit: int = 5) -> list[ConfigRef]:
    """The config versions whose digest begins so, under the names that they were first used by."""
    start = digest_prefix.removeprefix("sha256:").lower()
    query = select(ConfigVersionRow).where(col(ConfigVersionRow.digest).startswith(f"sha256:{start}", autoescape=True))
    with database.read() as session:
        rows = session.scalars(query.order_by(col(ConfigVersionRow.digest)).limit(limit))
        return [
            ConfigRef(digest=row.digest, block_type=row.block_type, name=row.name, content=row.content) for row in rows
        ]


def entry_document(database: Database, entry: ConfigEntry) -> dict[str, Any]:
    """All that an entry is made again from: itself, and its content as it was first used."""
    with database.read() as session:
        return _document(session, entry)


def _document(session: Session, entry: ConfigEntry) -> dict[str, Any]:
    version = session.get_one(ConfigVersionRow, entry.digest)
    content = {name: getattr(version, name) for name in ("digest", "block_type", "name", "content")}
    return {"entry": entry.to_dict(), "version": content | {"created_at": version.created_at.isoformat()}}


def restore_entries(database: Database, documents: Sequence[dict[str, Any]], entries: Sequence[ConfigEntry]) -> int:
    """Record entries as they were recorded before; those that are there stay.

    Args:
        database: To write.
        documents: As `entry_document` made them.
        entries: Those in the documents.

    Returns:
        How many were not there. If others were recorded meanwhile, all of a name are numbered again by their time.

    Raises:
        LineageError: As `Database.write` raises it.
    """

    def work(session: Session) -> int:
        _restore_versions(session, [document["version"] for document in documents])
        ids = [entry.id for entry in entries]
        known = set(session.scalars(select(col(ConfigEntryRow.id)).where(col(ConfigEntryRow.id).in_(ids))))
        missing = [entry for entry in entries if entry.id not in known]
        for block_type, name in sorted({(entry.block_type, entry.name) for entry in missing}):
            added = [entry for entry in missing if (entry.block_type, entry.name) == (block_type, name)]
            _merge(session, list(map(_to_entry, session.scalars(_entries_of(block_type, name)))), added)
        return len(missing)

    return database.transact(work)


def _restore_versions(session: Session, versions: Sequence[dict[str, Any]]) -> None:
    by_digest = {version["digest"]: version for version in versions}
    query = select(col(ConfigVersionRow.digest)).where(col(ConfigVersionRow.digest).in_(list(by_digest)))
    known = set(session.scalars(query))
    rows = [
        version | {"created_at": datetime.fromisoformat(version["created_at"])}
        for digest, version in sorted(by_digest.items())
        if digest not in known
    ]
    if rows:
        session.execute(insert(ConfigVersionRow), rows)


def _merge(session: Session, standing: list[ConfigEntry], added: list[ConfigEntry]) -> None:
    taken = {entry.sequence for entry in standing}
    if not taken & {entry.sequence for entry in added}:
        session.execute(insert(ConfigEntryRow), [asdict(entry) for entry in added])
        return
    ids = [entry.id for entry in standing]
    session.execute(delete(ConfigEntryRow).where(col(ConfigEntryRow.id).in_(ids)))
    number, digest, rows = 0, None, []
    in_time = sorted([*standing, *added], key=lambda entry: (entry.created_at, entry.id))
    for sequence, entry in enumerate(in_time, start=1):
        number, digest = number + (entry.digest != digest), entry.digest
        rows.append(asdict(replace(entry, sequence=sequence, number=number)))
    session.execute(insert(ConfigEntryRow), rows)


def _load_last(session: Session, ref: ConfigRef) -> tuple[bool, ConfigEntryRow | None]:
    """Whether the content is known, and the last entry of the name: in one statement."""
    known, *values = session.execute(
        _LAST, {"digest": ref.digest, "block_type": ref.block_type, "name": ref.name}
    ).one()
    found = dict(zip(_COLUMNS, values, strict=True))
    return known is not None, ConfigEntryRow(**found) if found["id"] is not None else None


def _select_last() -> Any:
    known = select(col(ConfigVersionRow.digest)).where(col(ConfigVersionRow.digest) == bindparam("digest"))
    one = select(known.scalar_subquery().label("known")).subquery()
    entries = _entries_of(bindparam("block_type"), bindparam("name"))
    last = entries.order_by(col(ConfigEntryRow.sequence).desc()).limit(1).subquery()
    columns = [last.c[name] for name in _COLUMNS]
    return select(one.c.known, *columns).select_from(one).outerjoin(last, last.c.id == last.c.id)


def _entries_of(block_type: Any, name: Any) -> Any:
    return select(ConfigEntryRow).where(col(ConfigEntryRow.block_type) == block_type, col(ConfigEntryRow.name) == name)


def _to_entry(row: ConfigEntryRow) -> ConfigEntry:
    return ConfigEntry(
        id=row.id,
        block_type=row.block_type,
        name=row.name,
        sequence=row.sequence,
        number=row.number,
        digest=row.digest,
        origin=cast(Origin, row.origin),
        author=row.author,
        note=row.note,
        restored=row.restored,
        created_at=row.created_at,
    )


_COLUMNS = tuple(ConfigEntryRow.model_fields)
_LAST = _select_last()  # built once: every run asks for it
