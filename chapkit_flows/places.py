"""What a model that is trained for each place has learnt: one trained model for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


class PlaceModels(Mapping[str, Any]):
    """Trained models by place. One that lies in the store is read when it is asked for.

    Attributes:
        kept: By place the trained model itself, or what leads to it.
    """

    def __init__(self, kept: Mapping[str, Any], read: Callable[[Any], Any] | None = None) -> None:
        """Some models.

        Args:
            kept: By place.
            read: From what is kept to the model; None if that is the model itself.
        """
        self.kept = dict(sorted(kept.items()))
        self._read = read

    def __getitem__(self, place: str) -> Any:
        found = self.kept[place]
        return self._read(found) if self._read is not None else found

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


def folder_names(places: Iterable[str]) -> dict[str, str]:
    """A name of a folder for each place: no two are equal on any disk, and people can tell which is whose."""
    return {
        place: f"{number:05d}-{re.sub(r'[^A-Za-z0-9]+', '_', place).strip('_')[:40]}".rstrip("-")
        for number, place in enumerate(places, start=1)
    }
