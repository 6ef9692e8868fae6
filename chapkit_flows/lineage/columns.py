"""Column types that mean the same in SQLite, PostgreSQL and MySQL."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect, Double, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator

_MYSQL = ("mysql", "mariadb")
_LARGEST = sys.float_info.max


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with microseconds: kept in UTC, comes back with its time zone."""

    impl = DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a moment without time zone; drop the zone where the column cannot hold it."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        moment = value.astimezone(UTC)
        return moment if dialect.name == "postgresql" else moment.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back; PostgreSQL answers in the zone of its session."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Label(TypeDecorator[str]):
    """A text of bounded length. SQLite does not enforce the bound, so it is enforced here for all."""

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse a text that another database would refuse or cut."""
        if value is not None and len(value) > self.length:
            raise ValueError(f"{value[:40]!r}… has {len(value)} characters, at most {self.length} fit")
        return None if value is None else storable(value)


class LongText(TypeDecorator[str]):
    """A text of any length. MySQL's plain TEXT ends at 64 kB."""

    impl = Text().with_variant(mysql.MEDIUMTEXT(), *_MYSQL)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what PostgreSQL cannot hold; the output of a script may contain it."""
        return None if value is None else storable(value)


class Number(TypeDecorator[float]):
    """A double that may be NaN or infinite.

    NaN is kept as NULL (SQLite turns it into that, MySQL refuses it), an infinity as the largest
    double of its sign (MySQL refuses infinities), so that comparisons still order them right.
    """

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """Map to what every database holds."""
        if value is None or math.isnan(value):
            return None
        return max(-_LARGEST, min(_LARGEST, float(value)))

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        """Map back."""
        if value is None:
            return math.nan
        return math.copysign(math.inf, value) if abs(value) == _LARGEST else value


def storable(text: str) -> str:
    """The text without NUL and lone surrogates, which PostgreSQL and UTF-8 cannot hold."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
