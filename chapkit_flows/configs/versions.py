"""Config versions: the content of a config block, frozen at the moment a run used it."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.errors import InvalidConfig
from chapkit_flows.refs import ConfigRef, canonical_json, digest_of

C = TypeVar("C", bound=ModelConfig)


def config_version(config: ModelConfig) -> ConfigRef:
    """The version that a config is now. Equal values of one block type have equal digests."""
    return config_ref(config.get_block_type_slug(), config._block_document_name, config.values())


def config_ref(block_type: str, name: str | None, content: dict[str, Any]) -> ConfigRef:
    """The version that a content is."""
    digest = digest_of(canonical_json({"block_type": block_type, "content": content}))
    return ConfigRef(digest=digest, block_type=block_type, name=name, content=content)


def is_saved(config: ModelConfig) -> bool:
    """Whether a config came from a saved block, under whose name its content is a version.

    One that was changed for a run, and one of an earlier run, has the name of the block, but not its id.
    """
    named = config._block_document_id is not None and config._block_document_name is not None
    return named and not config._is_anonymous


def restore_config(ref: ConfigRef, config_type: type[C]) -> C:
    """Build the config of a version again.

    Raises:
        InvalidConfig: The config class no longer accepts what it accepted then.
    """
    try:
        config = config_type.model_validate(dict(ref.content))
    except ValidationError as error:
        raise InvalidConfig(
            f"The config version {ref.digest[:19]} does not fit {config_type.__name__} any more: "
            f"{explain(error)}. Restore the fields that the class had when the model was trained."
        ) from error
    config._block_document_name = ref.name
    return config


def with_horizon(config: C, prediction_periods: int) -> C:
    """A copy for one run, with that run's horizon."""
    return config.model_copy(update={"prediction_periods": prediction_periods})


def explain(error: ValidationError) -> str:
    """Say field by field what pydantic found."""
    found = [f"{'.'.join(map(str, item['loc'])) or 'config'}: {item['msg']}" for item in error.errors()]
    return "; ".join(found)
