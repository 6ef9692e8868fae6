"""Standard JSON of any facts, as PostgreSQL and MySQL demand it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any


def dump_json(value: Any, *, sort_keys: bool = False) -> str:
    """The JSON text of a value.

    NaN and infinities become the texts "NaN", "Infinity" and "-Infinity"; times become ISO 8601.
    """
    try:
        return json.dumps(value, default=_plain, allow_nan=False, sort_keys=sort_keys)
    except ValueError:
        return json.dumps(finite(json.loads(json.dumps(value, default=_plain))), sort_keys=sort_keys)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def finite(value: Any) -> Any:
    """A JSON value without NaN and infinities, which JSON does not have: they become texts."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return json.dumps(value) if isinstance(value, float) and not math.isfinite(value) else value
