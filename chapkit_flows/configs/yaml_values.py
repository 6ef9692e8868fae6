"""Config values written as YAML, in a document or on the command line: only what JSON can hold as well."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import yaml

from chapkit_flows.errors import InvalidConfig

# Prefect's own keys of a stored block: in a config they would choose another block type, or be lost.
RESERVED = ("block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous")
_MOST = 100_000  # values in one document; a few nested anchors make billions
# PyYAML passes on what its constructors raise: ValueError for 2024-02-30 and 0b_, KeyError for !!bool x, and so on.
_CONSTRUCTOR_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)


def load_yaml(text: str) -> list[Any]:
    """Read the documents in a YAML text.

    Raises:
        InvalidConfig: It is not YAML, or holds something that cannot be stored and found again.
    """
    try:
        documents = list(yaml.safe_load_all(text))
    except (yaml.YAMLError, *_CONSTRUCTOR_ERRORS) as error:
        raise InvalidConfig(f"not readable YAML: {error}") from error
    for document in documents:
        _count(document, "the document", {})
    return documents


def check_keys(values: dict[Any, Any]) -> None:
    """Raise `InvalidConfig` if a key is not text, or one of Prefect's own."""
    for key in values:
        if not isinstance(key, str):
            raise InvalidConfig(f"the key {key!r} is not text. Put it in quotes.")
        if key in RESERVED:
            raise InvalidConfig(f"the key {key!r} belongs to Prefect. Use another name.")


def _count(value: Any, place: str, counts: dict[int, int | None]) -> int:
    """How many values stand in a value, written out; `counts` holds those seen, None for those around this one."""
    if not isinstance(value, dict | list):
        _check_scalar(value, place)
        return 1
    if id(value) in counts:
        count = counts[id(value)]
        if count is None:
            raise InvalidConfig(f"{place} contains itself by an anchor. Write it without the anchor.")
        return count
    counts[id(value)] = None
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    count = 1
    for key, item in items:
        _check_scalar(key, place)
        count += _count(item, repr(key) if isinstance(value, dict) else place, counts)
    if count > _MOST:
        raise InvalidConfig(f"{place} has more than {_MOST} values. A config must be smaller.")
    counts[id(value)] = count
    return count


def _check_scalar(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidConfig(f"{place} is {value}, which cannot be stored. Write a finite number, or text in quotes.")
    if isinstance(value, str) and not _is_unicode(value):
        raise InvalidConfig(f"{place} holds half a character: {ascii(value)[:80]}. Write the whole character.")
    if not isinstance(value, str | int | float | date | None):
        raise InvalidConfig(f"{place} is {type(value).__name__}, which cannot be stored. Write text, numbers or lists.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
