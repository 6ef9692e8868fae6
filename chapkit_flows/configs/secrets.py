"""Secret values of configs: lineage keeps masks; the values stay in the saved configs."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.documents import find_config
from chapkit_flows.errors import InvalidConfig
from chapkit_flows.refs import ConfigRef

C = TypeVar("C", bound=ModelConfig)


async def restore_secrets(config: C, ref: ConfigRef) -> C:
    """The config of a version with its secret values, which lineage does not keep: from the saved config.

    Raises:
        InvalidConfig: A secret value is masked, and there is no saved config to take it from.
    """
    secret = _secret_fields(type(config))
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


@cache
def _secret_fields(config_type: type[ModelConfig]) -> tuple[str, ...]:
    """The fields that are secret, or hold something that is."""
    paths = config_type.model_json_schema().get("secret_fields", [])
    return tuple(dict.fromkeys(path.split(".")[0] for path in paths))


def _is_masked(value: Any) -> bool:
    """Whether a value, or one within it, is what takes the place of a secret."""
    if isinstance(value, dict):
        return any(map(_is_masked, value.values()))
    return isinstance(value, str) and len(value) >= 8 and set(value) == {"*"}


def _unmasked(value: Any, source: Any) -> Any:
    if isinstance(value, dict) and isinstance(source, dict):
        return {key: _unmasked(item, source.get(key)) for key, item in value.items()}
    return source if source is not None and _is_masked(value) else value
