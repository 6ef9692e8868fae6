"""The config block that every model subclasses."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from typing import Any, ClassVar

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import BlockType
from prefect.exceptions import ObjectAlreadyExists
from pydantic import AliasChoices, AliasPath, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from chapkit_flows.configs.logo import with_logo
from chapkit_flows.configs.references import show_references
from chapkit_flows.configs.rules import FIELD, find_hooks

_OPTIONS = "additional_options"
_NESTED = "user_option_values"
# The fields that every config has: in a form those of the model come before them.
_SHARED = ("prediction_periods", "additional_continuous_covariates", _OPTIONS, FIELD)
# Keys that Prefect adds to the stored form of a nested or inline block.
_BLOCK_KEYS = {"block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous"}
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class ModelConfig(Block):
    """Settings of a forecasting model. Subclass it for a model of your own and add fields.

    Each subclass is a Prefect block type of its own, so that the run form of the model's flows offers
    the saved configs of exactly that model.

    Values under names that the class does not declare are kept in `additional_options`, through save and
    load, and can be read as attributes. The class name decides the block type (`RainConfig` is `rain-config`):
    give each model's class a name of its own and do not rename it once configs are saved.

    Example:
        ```python
        from chapkit_flows import ModelConfig

        class RainConfig(ModelConfig):
            n_lags: int = 3

        RainConfig(n_lags=6).save("six-lags")
        config = RainConfig.load("six-lags")
        ```
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True, validate_assignment=True)

    _block_type_name: ClassVar[str | None] = "Model Config"
    _block_type_slug: ClassVar[str | None] = "model-config"

    prediction_periods: int = Field(
        default=3,
        title="Prediction periods",
        description="How many periods ahead to predict when neither the run nor the future data says so.",
    )
    additional_continuous_covariates: list[str] = Field(
        default=[],
        title="Additional continuous covariates",
        description="Columns to use as covariates beside those that the model requires.",
    )
    additional_options: dict[str, Any] = Field(
        default={},
        title="Additional options",
        description="Values that the model's config class does not declare, by name.",
    )
    validation_rules: list[dict[str, Any]] = Field(
        default=[],
        title="Validation rules",
        description="What must be true of these values before a run, as under rules in a config document.",
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A block class inherits its parent's slug and would take over the parent's block type on the server.
        if "_block_type_name" not in cls.__dict__:
            cls._block_type_name = _WORD_START.sub(" ", cls.__name__)
        if "_block_type_slug" not in cls.__dict__:
            cls._block_type_slug = None  # Prefect then makes it from the name: Rain Config, rain-config

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        find_hooks(cls)  # refuses rules that contradict each other where they are written

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        # The server checks a parameter against oneOf(block schema, reference). A reference to a block whose
        # fields all have defaults fits both, and is refused unless the first branch excludes it.
        resolved = handler.resolve_ref_schema(schema)
        resolved["dependentSchemas"] = {"$ref": {"required": ["__inline_value__"]}}
        # The first run form of Prefect's UI drops the keyword above before it asks the server; this it keeps.
        resolved.setdefault("properties", {})["$ref"] = {"type": "object", "required": ["__inline_value__"]}
        return schema

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The schema of the block type, for the form in which one creates a config: the model's fields first."""
        # Prefect asks for it three times for each config that is saved, and changes what it is given.
        return deepcopy(cls._make_schema(args, tuple(kwargs.items())))

    @classmethod
    @cache
    def _make_schema(cls, args: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
        schema = super().model_json_schema(*args, **dict(options))
        fields = sorted(schema.get("properties", {}).items(), key=lambda item: item[0] in _SHARED)
        for position, (_, part) in enumerate(fields):
            part["position"] = position  # by this both forms sort them
        schema["properties"] = dict(fields)
        for part in (schema, *schema.get("definitions", {}).values(), *schema.get("$defs", {}).values()):
            part.get("properties", {}).pop("$ref", None)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _collect_options(cls, values: Any) -> Any:
        """Move undeclared values to `additional_options`; accept chap-core's `user_option_values` as fields."""
        if not isinstance(values, dict):
            return values
        declared = _declared_keys(cls) | _BLOCK_KEYS
        nested = values.get(_NESTED)
        if isinstance(nested, dict) and _NESTED not in declared:
            values = nested | {key: value for key, value in values.items() if key != _NESTED}
        # What values() writes under an alias that pydantic only writes must be readable again.
        fields = _written_only(cls, declared)
        values = {fields.get(key, key): value for key, value in values.items()}
        unknown = {key: value for key, value in values.items() if key not in declared}
        if not unknown:
            return values
        kept = {key: value for key, value in values.items() if key in declared}
        given = kept.get(_OPTIONS)
        return kept | {_OPTIONS: (given if isinstance(given, dict) else {}) | unknown}

    @classmethod
    def _to_block_type(cls) -> BlockType:
        return with_logo(super()._to_block_type())

    @classmethod
    def _generate_code_example(cls) -> str:
        # Prefect's own would import from the name that this process gave to the model's file.
        return (
            "```python\nfrom chapkit_flows import load_model\n\n"
            f'{cls.__name__} = load_model("path/to/model.py").config\nconfig = {cls.__name__}.load("BLOCK_NAME")\n```'
        )

    def __getattr__(self, name: str) -> Any:
        options = self.__dict__.get(_OPTIONS) or {}
        if name in options:
            return options[name]
        return super().__getattr__(name)  # type: ignore[misc]  # pydantic hides it from type checkers

    def values(self, *, reveal: bool = False) -> dict[str, Any]:
        """The user's values by alias, as plain JSON types, options included.

        References such as `${env:TOKEN}` are no secrets: they are given as they are. Rules that the config was saved
        with are among the values, as `validation_rules`, if there are any.

        Args:
            reveal: Whether secret values are given as they are, not masked. Never store or show those.
        """
        content = self._dump(reveal=reveal)
        if not reveal and secret_fields(type(self)):
            content = show_references(content, self._dump(reveal=True))
        options = content.pop(_OPTIONS)
        if not content[FIELD]:
            del content[FIELD]
        return {key: value for key, value in (options | content).items() if key not in _BLOCK_KEYS}

    @classmethod
    async def aregister_type_and_schema(cls, client: PrefectClient | None = None) -> None:
        """Register the block type with the fields that the class has now."""
        for _ in ("the type", "its schema"):
            try:
                await super().aregister_type_and_schema(client=client)
            except ObjectAlreadyExists:
                continue  # another process has registered it since this one looked
            return
        await super().aregister_type_and_schema(client=client)

    @classmethod
    @cache
    def get_block_type_slug(cls) -> str:
        """The block type; Prefect's own makes it anew for each dump of each config."""
        return super().get_block_type_slug()

    def _field_has_secrets(self, field_name: str) -> bool:
        # Prefect's own makes the whole schema of the class for each field of each config.
        return field_name in secret_fields(type(self))

    def _dump(self, *, reveal: bool) -> dict[str, Any]:
        return self.model_dump(
            mode="json",
            by_alias=True,
            include=set(type(self).model_fields),
            context={"include_secrets": reveal},
        )


@cache
def secret_fields(config_type: type[ModelConfig]) -> tuple[str, ...]:
    """The fields that are secret, or hold something that is."""
    paths = config_type.model_json_schema().get("secret_fields", [])
    return tuple(dict.fromkeys(path.split(".")[0] for path in paths))


def _declared_keys(config_type: type[ModelConfig]) -> set[str]:
    """The names of the fields, and all that they are read from."""
    return {key for name, field in config_type.model_fields.items() for key in (name, *_read_from(field))}


def _read_from(field: FieldInfo) -> set[str]:
    alias = field.validation_alias
    aliases = alias.choices if isinstance(alias, AliasChoices) else [alias]
    return {str(item.path[0] if isinstance(item, AliasPath) else item) for item in aliases if item is not None}


def _written_only(config_type: type[ModelConfig], declared: set[str]) -> dict[str, str]:
    """The name of each field whose alias for writing is not one for reading, by that alias."""
    written = {field.serialization_alias: name for name, field in config_type.model_fields.items()}
    return {alias: name for alias, name in written.items() if alias is not None and alias not in declared}
