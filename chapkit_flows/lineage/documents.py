"""Values of this room as JSON documents, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

from chapkit_flows.errors import LineageError
from chapkit_flows.lineage.json_text import dump_json

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A value that is kept as JSON too."""

    def to_dict(self) -> dict[str, Any]:
        """Itself as JSON values; times as ISO 8601."""
        plain: dict[str, Any] = json.loads(dump_json(asdict(self)))
        return plain


def read_value(
    kind: type[T], document: Mapping[str, Any], what: str, *, moments: Sequence[str], optional: Sequence[str] = ()
) -> T:
    """The value that a document was made from.

    Args:
        kind: Its class.
        document: As `to_dict` made it.
        what: Such a value for people: `annotation`.
        moments: The fields that are times.
        optional: Those of them that may be None.

    Raises:
        LineageError: It is no such document.
    """
    try:
        given = [name for name in moments if name not in optional or document[name] is not None]
        return kind(**(dict(document) | {name: datetime.fromisoformat(document[name]) for name in given}))
    except (KeyError, TypeError, ValueError) as error:
        raise LineageError(f"The document is no {what}: {error!r}. Restore it from a backup.") from error
