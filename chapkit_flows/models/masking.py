"""Taking secret values out of what a model's code prints and raises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chapkit_flows.models.runner import Config

MASK = "**********"
_LEAST = 4  # characters; a shorter secret would be found in every other word


class Mask:
    """Replaces the secret values of a config in texts.

    Also as they look within quotes, where line ends and the like are escaped.
    """

    def __init__(self, config: Config) -> None:
        secrets = {text for text in _secrets(config.values(), config.values(reveal=True)) if len(text) >= _LEAST}
        looks = {look for text in secrets for look in (text, repr(text)[1:-1], json.dumps(text)[1:-1])}
        # A secret of several lines is printed line by line.
        looks |= {line for text in secrets for line in text.splitlines() if len(line) >= 2 * _LEAST}
        self._looks = sorted(looks, key=len, reverse=True)

    def __bool__(self) -> bool:
        return bool(self._looks)

    def __call__(self, text: str) -> str:
        """The text with asterisks for the secrets."""
        for look in self._looks:
            text = text.replace(look, MASK)
        return text

    def clean(self, file: Path) -> None:
        """Mask what was printed into a file."""
        if not self._looks or not file.is_file():
            return
        content = file.read_bytes()
        cleaned = content
        for look in self._looks:
            cleaned = cleaned.replace(look.encode(), MASK.encode())
        if cleaned != content:
            file.write_bytes(cleaned)


def _secrets(masked: Any, revealed: Any) -> Iterator[str]:
    """The values that differ once they are revealed."""
    if isinstance(masked, dict) and isinstance(revealed, dict):
        for key, value in revealed.items():
            yield from _secrets(masked.get(key), value)
    elif isinstance(masked, list) and isinstance(revealed, list) and len(masked) == len(revealed):
        for hidden, value in zip(masked, revealed, strict=True):
            yield from _secrets(hidden, value)
    elif isinstance(revealed, dict):
        for value in revealed.values():
            yield from _secrets(MASK, value)
    elif isinstance(revealed, list):
        for value in revealed:
            yield from _secrets(MASK, value)
    elif masked != revealed:
        yield str(revealed)
