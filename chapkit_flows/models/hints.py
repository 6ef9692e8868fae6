"""What one fold, or one training, of a model needs of the machine that does it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from chapkit_flows.errors import InvalidModel

_UNITS = {
    "": 1, "B": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceHints:
    """What one fold needs.

    Attributes:
        cpus: Processors; below 1 for a share of one.
        memory: Bytes; None if nothing is known of it.
        gpus: Graphics processors; below 1 for a share of one.
    """

    cpus: float = 1.0
    memory: int | None = None
    gpus: float = 0.0

    def at_once(self, workers: int) -> int:
        """How many folds this machine can do at the same time, on so many of its processors: at least one."""
        count = int(workers / self.cpus)
        if self.memory is not None:
            count = min(count, total_memory() // self.memory)
        return max(1, count)


def read_hints(given: Mapping[str, Any], *, model: str) -> ResourceHints:
    """Check what a model says that it needs.

    Args:
        given: `cpus`, `memory` (bytes, or a text such as `"4 GB"` or `"512 MiB"`) and `gpus`.
        model: Its name, for the message.

    Raises:
        InvalidModel: There is another key, or a value that no machine can fulfil.
    """
    known = [item.name for item in fields(ResourceHints)]
    if not isinstance(given, Mapping) or not set(given) <= set(known):
        raise InvalidModel(f"Model {model}: resources is {given!r}; write a mapping with some of {', '.join(known)}.")
    read: dict[str, Callable[[Any], Any]] = {"cpus": _read_count, "memory": _read_bytes, "gpus": _read_count}
    values = {name: read[name](value) for name, value in given.items()}
    for name, value in values.items():
        if value is None or (name != "gpus" and value <= 0):
            wanted = 'a number of bytes, or a text such as "4 GB"' if name == "memory" else "0.5, or 1, 2, …"
            raise InvalidModel(f"Model {model}: resources[{name!r}] is {given[name]!r}; write {wanted}.")
    return ResourceHints(**values)


def _read_count(value: Any) -> float | None:
    """A share of one, or a whole number: clusters have no other."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value) if value <= 1 or value == int(value) else None


def _read_bytes(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    unit = _UNITS.get(found[2].upper()) if found else None
    return int(float(found[1]) * unit) if found and unit else None


def total_memory() -> int:
    """Of this machine, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
