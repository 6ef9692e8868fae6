"""What each URI has brought so far: the newest reading of a URI decides which dataset is its current one."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased
from sqlmodel import col

from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Reading
from chapkit_flows.lineage.query import page
from chapkit_flows.lineage.rows import to_reading
from chapkit_flows.lineage.tables import ReadingRow
from chapkit_flows.refs import digest_of

_SECRET = re.compile(r"token|secret|passw|credential|authori|(api|access)[-_]?key|\Akey\Z|expires", re.IGNORECASE)
_SIGNED = re.compile(r"\A(sig|signature|x-amz-signature|x-goog-signature)\Z", re.IGNORECASE)
_BATCH = 500


def uri_digest(uri: str) -> str:
    """What makes two URIs the same one: paths absolute, no user, no password, no signature, no token.

    The digest must neither hold a secret nor change with each new signature of the same object, but
    `…/analytics?year=2025` and `…/analytics?year=2026` are two.
    """
    plain = uri.removeprefix("file://")
    if "://" not in plain:
        return digest_of(_absolute(plain).encode(errors="surrogateescape"))
    place, _, query = re.sub(r"://[^/\s]*@", "://", uri).partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    signed = any(_SIGNED.match(name) for name, _ in asked)
    kept = [] if signed else [f"{name}={value}" for name, value in asked if not _SECRET.search(name)]
    return digest_of("?".join([place, "&".join(kept)]).encode(errors="replace"))


def _absolute(path: str) -> str:
    try:
        return os.path.normpath(Path(path).expanduser().absolute())
    except RuntimeError:  # there is no such user
        return path


def readings(database: Database, uri: str, *, limit: int = 50, before: str | None = None) -> list[Reading]:
    """The readings of a URI, newest first.

    Args:
        database: To read.
        uri: As a run is given it.
        limit: Length of a page.
        before: The id of the last reading on the page before.

    Raises:
        InvalidId: `before` is not an id.
    """
    query = select(ReadingRow).where(col(ReadingRow.uri_digest) == uri_digest(uri))
    with database.read() as session:
        return [to_reading(row) for row in session.scalars(page(query, col(ReadingRow.id), limit, before))]


def last_reading(database: Database, uri: str) -> Reading | None:
    """The newest reading of a URI: its dataset is the current one; None if no run has read it."""
    return last_reading_of(database, uri_digest(uri))


def last_reading_of(database: Database, digest: str) -> Reading | None:
    """The newest reading of a URI with that `uri_digest`."""
    query = select(ReadingRow).where(col(ReadingRow.uri_digest) == digest)
    with database.read() as session:
        row = session.scalars(page(query, col(ReadingRow.id), 1, None)).first()
        return None if row is None else to_reading(row)


def newer_readings(database: Database, artifact_ids: Iterable[str]) -> dict[str, list[Reading]]:
    """By dataset: the newest reading of each URI that has brought it once and brings another one now.

    Datasets without such a URI are not among the keys: they are current.
    """
    with database.read() as session:
        return find_newer(session, artifact_ids)


def is_stale(database: Database, artifact_id: str) -> bool:
    """Whether a later reading of a URI of a dataset brought other content."""
    return artifact_id in newer_readings(database, [artifact_id])


def find_newer(session: Session, artifact_ids: Iterable[str]) -> dict[str, list[Reading]]:
    """`newer_readings` in a transaction."""
    wanted = sorted(set(artifact_ids))
    found: defaultdict[str, list[Reading]] = defaultdict(list)
    for begin in range(0, len(wanted), _BATCH):
        for artifact_id, reading in _find_newer(session, wanted[begin : begin + _BATCH]):
            found[artifact_id].append(reading)
    return dict(found)


def _find_newer(session: Session, artifact_ids: Sequence[str]) -> Iterator[tuple[str, Reading]]:
    columns = (col(ReadingRow.artifact_id), col(ReadingRow.uri_digest))
    pairs = select(*columns).where(col(ReadingRow.artifact_id).in_(artifact_ids)).distinct().subquery()
    other = aliased(ReadingRow)
    newest = select(func.max(col(other.id))).where(col(other.uri_digest) == pairs.c.uri_digest).scalar_subquery()
    last = session.execute(select(pairs.c.artifact_id, newest).order_by(pairs.c.artifact_id, pairs.c.uri_digest)).all()
    # Another statement, not a join: MySQL would look for the newest among all readings.
    query = select(ReadingRow).where(col(ReadingRow.id).in_({reading_id for _, reading_id in last}))
    rows = {row.id: to_reading(row) for row in session.scalars(query)} if last else {}
    for artifact_id, reading_id in last:
        if rows[reading_id].artifact_id != artifact_id:
            yield artifact_id, rows[reading_id]
