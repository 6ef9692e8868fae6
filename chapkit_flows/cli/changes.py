"""The config of a run: a saved one or the defaults, and what `--set` changes in it."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from chapkit_flows.cli.output import say
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.documents import load_config
from chapkit_flows.configs.yaml_values import check_keys, load_yaml
from chapkit_flows.errors import InvalidConfig
from chapkit_flows.flows.model import Model

_SHOWN = 80  # characters of a value


async def read_config(model: Model, options: argparse.Namespace) -> ModelConfig:
    """The saved config that `--config` names, or the defaults; then what `--set` changes.

    Raises:
        ConfigNotFound: There is no such config.
        InvalidConfig: A value does not fit its field.
    """
    saved = await load_config(model.config, options.config) if options.config else None
    texts = dict(split_change(text) for text in options.set)
    if saved is not None and not texts:
        return saved
    changes = {key: _read_value(key, text) for key, text in texts.items()}
    try:
        config = model.config.model_validate((saved.values(reveal=True) if saved else {}) | changes)
    except ValidationError as error:
        found = "; ".join(_explain(item, texts, model.config) for item in error.errors(include_url=False))
        raise InvalidConfig(f"The config does not fit {model.config.__name__}: {found}") from error
    for key in changes:
        if key in config.additional_options and (saved is None or key not in saved.additional_options):
            say(_notice(key, config))
    if saved is not None:
        config._block_document_name = saved._block_document_name  # where its secrets come from when it predicts
    return config


def split_change(text: str) -> tuple[str, str]:
    """The field and the value of a `--set`, as they are written.

    Raises:
        InvalidConfig: It has no `=`, or no field.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InvalidConfig(f"--set {text!r}: write it as key=value, such as --set n_lags=4.")
    return key.strip(), value


def _read_value(key: str, text: str) -> Any:
    try:
        check_keys({key: text})
        documents = load_yaml(text) or [None]
    except InvalidConfig as error:
        raise InvalidConfig(f"--set {_given(key, text)}: {error}") from error
    if len(documents) > 1:
        raise InvalidConfig(f"--set {_given(key, text)}: that is more than one value. Put text in quotes.")
    return documents[0]


def read_values(key: str, text: str) -> list[Any]:
    """The values of a `--set` with commas between; each may be a list itself, in brackets.

    Raises:
        InvalidConfig: They cannot be read.
    """
    try:
        documents = load_yaml(f"[{text}]")
    except InvalidConfig as error:
        raise InvalidConfig(f"--set {_given(key, text)}: {error}") from error
    values = documents[0] if len(documents) == 1 else None
    if not isinstance(values, list):
        raise InvalidConfig(f"--set {_given(key, text)}: write values with commas between, such as {key}=1,2,3.")
    return values


def _explain(found: Mapping[str, Any], texts: Mapping[str, str], config_type: type[ModelConfig]) -> str:
    """What pydantic found, with the value as it was given."""
    place = ".".join(map(str, found["loc"])) or "config"
    fields = config_type.model_fields
    key = str(found["loc"][0]) if found["loc"] else ""
    # pydantic names a field by its alias; the user may have named it by its name.
    names = [name for name, field in fields.items() if key in (name, field.alias)]
    key = next((name for name in names if name in texts), key)
    if found["type"] == "missing":
        return f"{place} is required. Pass --set {place}=VALUE, or a saved config with --config NAME."
    if key not in texts:
        return f"{place}: {found['msg']}"
    secret = any("Secret" in str(fields[name].annotation) for name in names)
    inner = f" ({place})" if len(found["loc"]) > 1 else ""
    return f"--set {_given(key, '***' if secret else texts[key])}{inner}: {found['msg']}"


def _given(key: str, text: str) -> str:
    return f"{key}={text[:_SHOWN]}" + ("…" if len(text) > _SHOWN else "")


def _notice(key: str, config: ModelConfig) -> str:
    """That a key names no field, and which one was perhaps meant."""
    fields = {*type(config).model_fields, *config.values()} - set(config.additional_options)
    near = difflib.get_close_matches(key, sorted(fields), n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    return f"{key} is not a field of {type(config).__name__}{meant} It is passed on as an additional option."
