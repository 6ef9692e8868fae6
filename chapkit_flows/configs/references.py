"""References to secrets that are kept elsewhere: `${env:NAME}`, `${file:/path}`, `${secret-block:name/key}`.

A reference is the whole value of a secret field, or one within it. It may be shown and stored; what it refers to is
read only inside a run (`chapkit_flows.configs.secrets.reveal`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.types import Secret, SecretStr

MASK = "**********"  # as pydantic writes it
KINDS = ("env", "file", "secret-block")
_REFERENCE = re.compile(r"\$\{([A-Za-z][A-Za-z-]*):([^{}\n]*)\}")
_WITHIN = re.compile(rf"\$\{{(?:{'|'.join(KINDS)}):")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLOCK_NAME = re.compile(r"[a-z0-9-]+(?:/.+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference: what kind, and to what."""

    kind: str
    target: str

    def __str__(self) -> str:
        return f"${{{self.kind}:{self.target}}}"


class Text(NamedTuple):
    """A text somewhere in a config."""

    path: tuple[str, ...]
    text: str
    is_secret: bool


class Trouble(NamedTuple):
    """A reference that no run could use, and why."""

    path: tuple[str, ...]
    text: str


def read_reference(text: Any) -> Reference | None:
    """The reference that a value is; None if it is none, or a malformed one."""
    found = _REFERENCE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    kind, target = found.groups()
    if kind == "env":
        good = _ENV_NAME.fullmatch(target) is not None
    elif kind == "secret-block":
        good = _BLOCK_NAME.fullmatch(target) is not None
    else:
        good = kind == "file" and target.startswith("/")
    return Reference(kind=kind, target=target) if good else None


def find_texts(value: Any, path: tuple[str, ...] = (), *, is_secret: bool = False) -> Iterator[Text]:
    """Every text in a config, and whether it is secret."""
    if isinstance(value, Secret | SecretStr):
        yield from find_texts(value.get_secret_value(), path, is_secret=True)
    elif isinstance(value, str):
        yield Text(path, value, is_secret)
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = path if name == "additional_options" else (*path, field.alias or name)
            yield from find_texts(getattr(value, name), inner, is_secret=is_secret)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from find_texts(item, (*path, str(key)), is_secret=is_secret)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from find_texts(item, (*path, str(index)), is_secret=is_secret)


def find_trouble(config: BaseModel) -> Iterator[Trouble]:
    """References that stand where none may, or are malformed."""
    for path, text, is_secret in find_texts(config):
        if "${" not in text:
            continue
        reference = read_reference(text)
        if is_secret:
            # The text itself may be secret: it is not repeated.
            if reference is None and (_REFERENCE.fullmatch(text) or _WITHIN.search(text)):
                yield Trouble(path, f"that is no reference. As the whole value write one of {_FORMS}.")
        elif reference is not None:
            yield Trouble(
                path,
                f"{reference} is a reference to a secret, but this is no secret field. Declare it as SecretStr in the "
                "config class, or write the value itself.",
            )


_FORMS = "${env:NAME}, ${file:/path}, ${secret-block:name} and ${secret-block:name/key}"


def replace_texts(value: Any, replacement: Callable[[str], str | None], *, is_secret: bool = False) -> Any:
    """A copy with other texts in the secret values; `replacement` gives None for those that stay.

    What does not change is the same object as before.
    """
    if isinstance(value, Secret | SecretStr):
        inner = value.get_secret_value()
        changed = replace_texts(inner, replacement, is_secret=True)
        return value if changed is inner else type(value)(changed)
    if isinstance(value, str):
        found = replacement(value) if is_secret else None
        return value if found is None else found
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        update = {name: replace_texts(item, replacement, is_secret=is_secret) for name, item in fields.items()}
        update = {name: item for name, item in update.items() if item is not fields[name]}
        return value.model_copy(update=update) if update else value
    if isinstance(value, dict):
        items = {key: replace_texts(item, replacement, is_secret=is_secret) for key, item in value.items()}
        return items if any(items[key] is not value[key] for key in value) else value
    if isinstance(value, list | tuple):
        parts = [replace_texts(item, replacement, is_secret=is_secret) for item in value]
        return type(value)(parts) if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    return value


def show_references(masked: Any, revealed: Any) -> Any:
    """Masked values, but for those that are references: these are no secrets.

    A secret mapping keeps its keys, so that the masked config is one that its class accepts.
    """
    if isinstance(masked, dict) and isinstance(revealed, dict):
        return {key: show_references(item, revealed.get(key)) for key, item in masked.items()}
    if isinstance(masked, list) and isinstance(revealed, list) and len(masked) == len(revealed):
        return [show_references(item, other) for item, other in zip(masked, revealed, strict=True)]
    return masked if masked == revealed else _mask(revealed)


def _mask(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mask(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mask(item) for item in value]
    return value if read_reference(value) is not None else MASK
