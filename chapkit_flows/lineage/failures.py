"""What a database said, as an error of this package; URLs without their passwords."""

from __future__ import annotations

import re

from sqlalchemy import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError, StatementError

from chapkit_flows.errors import DatabaseLocked, DatabaseUnavailable, LineageError

_SECRET_KEY = re.compile(r"pass|secret|token", re.IGNORECASE)
_SQLITE_LOCKED = {5, 6}  # SQLITE_BUSY, SQLITE_LOCKED
_SQLITE_READONLY = 8
_LOCK_TIMEOUT = {"55P03", 1205}  # of PostgreSQL (sqlstate) and MySQL (error number)
_DEADLOCK = {"40P01", "40001", 1213, 1020}


def mask(url: str) -> str:
    """The URL as it may be shown: passwords become `***`."""
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        return re.sub(r"://[^/]*@", "://***@", url)
    shown = {key: "***" for key in parsed.query if _SECRET_KEY.search(key)}
    masked = parsed.update_query_dict(shown).render_as_string(hide_password=True)
    return masked.replace("%2A%2A%2A", "***")


def is_contention(error: SQLAlchemyError) -> bool:
    """Whether another writer got in between, so that the same transaction may succeed when run again."""
    if isinstance(error, IntegrityError):
        return True
    return isinstance(error, DBAPIError) and _code(error) in _DEADLOCK


def translate(error: SQLAlchemyError, url: str) -> LineageError:
    """The error to raise for what a database, or SQLAlchemy before it, refused.

    Args:
        error: As SQLAlchemy raised it.
        url: Of the database, masked.
    """
    reason = str(getattr(error, "orig", None) or error).strip()
    if isinstance(error, DBAPIError) and _is_locked(error):
        return DatabaseLocked(
            f"Another process holds the lineage database {url} ({reason}). "
            "Wait for it to end, or use PostgreSQL for many writers."
        )
    if isinstance(error, IntegrityError):
        return LineageError(f"The lineage database {url} refused rows that contradict others: {reason}")
    if isinstance(error, DataError) or type(error) is StatementError:  # plain: SQLAlchemy itself refused
        return LineageError(f"A value cannot be kept in the lineage database {url}: {reason}")
    if isinstance(error, OperationalError) and _sqlite_code(error) == _SQLITE_READONLY:
        return DatabaseUnavailable(
            f"The lineage database {url} is read-only. Make the file and its folder writable for this user."
        )
    return DatabaseUnavailable(
        f"The lineage database {url} cannot be used: {reason}. Check its URL, rights and free space."
    )


def _is_locked(error: DBAPIError) -> bool:
    return _sqlite_code(error) in _SQLITE_LOCKED or _code(error) in _LOCK_TIMEOUT


def _sqlite_code(error: DBAPIError) -> int | None:
    """The primary result code; the extended ones add detail in the higher bytes."""
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _code(error: DBAPIError) -> str | int | None:
    """The sqlstate of psycopg, else the number that MySQL's drivers put first."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state
    first = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return first if isinstance(first, int) else None
