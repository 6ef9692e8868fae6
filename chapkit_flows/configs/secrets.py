"""Secret values of configs: lineage keeps masks and references; the values stay where they are kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from prefect.blocks.system import Secret

from chapkit_flows.configs.block import ModelConfig, secret_fields
from chapkit_flows.configs.documents import find_config
from chapkit_flows.configs.references import Reference, find_texts, find_trouble, read_reference, replace_texts
from chapkit_flows.errors import InvalidConfig
from chapkit_flows.refs import ConfigRef, Diagnostic

C = TypeVar("C", bound=ModelConfig)
_MOST = 1 << 20  # bytes of a file with a secret


class _Unresolved(Exception):
    """A reference that leads nowhere here; the text says why, and never what was found."""


class Revealed(NamedTuple):
    """What became of the references of a config."""

    config: ModelConfig
    findings: tuple[Diagnostic, ...]


async def reveal(config: ModelConfig) -> Revealed:
    """A copy of a config with the values that its references lead to, for the model's code alone.

    Never store, log or record that copy. A config without references is returned as it is.
    """
    findings = [
        Diagnostic.error("invalid_reference", f"{_dotted(path)}: {text}", _dotted(path))
        for path, text in find_trouble(config)
    ]
    values: dict[str, str] = {}
    blocks: dict[str, Any] = {}
    for path, text, is_secret in find_texts(config):
        reference = read_reference(text) if is_secret else None
        if reference is None or text in values:
            continue
        try:
            values[text] = await _resolve(reference, blocks)
        except _Unresolved as reason:
            message = f"{_dotted(path)} is {reference}, which leads to nothing: {reason}"
            findings.append(Diagnostic.error("unresolved_reference", message, _dotted(path)))
    revealed = replace_texts(config, values.get) if values else config
    assert isinstance(revealed, ModelConfig)
    return Revealed(revealed, tuple(findings))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(("config", *path))


async def _resolve(reference: Reference, blocks: dict[str, Any]) -> str:
    if reference.kind == "env":
        return _from_environment(reference.target)
    if reference.kind == "file":
        return _from_file(Path(reference.target))
    name, _, key = reference.target.partition("/")
    if name not in blocks:
        blocks[name] = await _load_secret(name)
    return _pick(blocks[name], name, key)


def _from_environment(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise _Unresolved(
            f"the environment variable {name} is not set, or empty, where the run takes place. Set it for the worker "
            "or in the job variables of the work pool."
        )
    return value


def _from_file(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST:
            raise _Unresolved("the file has more than 1 MiB. Write the secret alone into it.")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise _Unresolved(f"{error.strerror}. Mount the file where the run takes place.") from None
    except UnicodeDecodeError:
        raise _Unresolved("the file is not UTF-8 text.") from None
    text = text.removesuffix("\n").removesuffix("\r")  # editors and `echo` end the last line
    if not text:
        raise _Unresolved("the file is empty.")
    return text


async def _load_secret(name: str) -> Any:
    try:
        block: Any = await Secret.aload(name)
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise
        raise _Unresolved(
            f"there is no saved block secret/{name}. Save one in Prefect's UI under Blocks, of type Secret."
        ) from None
    return block.value.get_secret_value()


def _pick(value: Any, name: str, key: str) -> str:
    """A secret as text; of one that holds several values, that of a key."""
    if key:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not isinstance(value, dict):
            raise _Unresolved(f"the block secret/{name} holds one value, without keys. Write ${{secret-block:{name}}}.")
        if key not in value:
            raise _Unresolved(f"the block secret/{name} has no key {key!r}.")
        value = value[key]
    if isinstance(value, dict | list):
        raise _Unresolved(f"it holds several values. Name one: ${{secret-block:{name}/KEY}}.")
    if value is None or value == "":
        raise _Unresolved("it is empty.")
    return value if isinstance(value, str) else json.dumps(value)


async def restore_secrets(config: C, ref: ConfigRef) -> C:
    """The config of a version with its secret values, which lineage does not keep: from the saved config.

    Raises:
        InvalidConfig: A secret value is masked, and there is no saved config to take it from.
    """
    secret = secret_fields(type(config))
    if not any(_is_masked(ref.content.get(name)) for name in secret):
        return config
    saved = await find_config(type(config), ref.name) if ref.name else None
    content = _unmasked(dict(ref.content), saved.values(reveal=True) if saved is not None else {})
    if any(_is_masked(content.get(name)) for name in secret):
        source = f"the saved config {ref.name!r}, which is gone or has none" if ref.name else "no saved config"
        raise InvalidConfig(
            f"The training used secret values ({', '.join(secret)}). Lineage does not keep them, and there is {source} "
            "to take them from. Save a config with them in Prefect's UI under Blocks, and train with it."
        )
    filled = type(config).model_validate(content)
    filled._block_document_name = ref.name
    return filled


def _is_masked(value: Any) -> bool:
    """Whether a value, or one within it, is what takes the place of a secret."""
    if isinstance(value, dict):
        return any(map(_is_masked, value.values()))
    if isinstance(value, list):
        return any(map(_is_masked, value))
    return isinstance(value, str) and len(value) >= 8 and set(value) == {"*"}


def _unmasked(value: Any, source: Any) -> Any:
    if isinstance(value, dict) and isinstance(source, dict):
        return {key: _unmasked(item, source.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(source, list) and len(value) == len(source):
        return [_unmasked(item, other) for item, other in zip(value, source, strict=True)]
    return source if source is not None and _is_masked(value) else value
