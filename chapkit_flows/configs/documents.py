"""Config blocks as YAML documents in a folder, and those that are saved on the Prefect server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.types.names import BlockDocumentName
from pydantic import TypeAdapter, ValidationError

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.references import find_trouble
from chapkit_flows.configs.rules import FIELD, check_rules, read_rules
from chapkit_flows.configs.rules import KEYS as RULE_KEYS
from chapkit_flows.configs.versions import explain
from chapkit_flows.configs.yaml_values import YamlDocument, check_keys, read_yaml
from chapkit_flows.errors import ConfigNotFound, InvalidBlockDocument, InvalidConfig, ModelError
from chapkit_flows.refs import Diagnostic

KEYS = ("block_type_slug", "name", "fields", "model", "rules")
_NO_FIELDS = ("additional_options", FIELD)
_NAME: TypeAdapter[str] = TypeAdapter(BlockDocumentName)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDocument:
    """One YAML document.

    Attributes:
        file: Where it stands.
        block_type_slug: The block type, such as `rain-config`.
        name: The name of the saved block.
        fields: Its values, by alias.
        model: Where the model is defined that owns the block type: `path/to/file.py:name`, relative to the
            YAML file, or the name of an installed model.
        index: Which of the documents of its file it is, from 0.
    """

    file: Path
    block_type_slug: str
    name: str
    fields: dict[str, Any]
    model: str
    index: int = 0
    written: YamlDocument | None = field(default=None, repr=False, compare=False)

    @property
    def slug(self) -> str:
        """`type/name`, as Prefect writes it."""
        return f"{self.block_type_slug}/{self.name}"

    def place(self, *path: str | int) -> str:
        """File and line of the document, or of what stands at a path in it."""
        return f"{self.file}:{self.written.line_of(*path)}" if self.written else str(self.file)


def read_documents(path: Path) -> list[BlockDocument]:
    """Read a YAML file, or all in a folder. One file may hold several documents.

    Raises:
        InvalidBlockDocument: A document cannot be read, or two have the same type and name.
    """
    if not path.exists():
        raise InvalidBlockDocument(f"There is no file or folder {path}.")
    files = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path]
    documents = [document for file in files for document in _read_file(file)]
    if not documents:
        raise InvalidBlockDocument(f"{path} holds no block documents (*.yaml).")
    seen: dict[str, BlockDocument] = {}
    for document in documents:
        if document.slug in seen:
            first = seen[document.slug].place("name")
            raise InvalidBlockDocument(
                f"{document.place('name')}: {document.slug} stands twice, first in {first}. Rename one."
            )
        seen[document.slug] = document
    return documents


def read_text(file: Path) -> str:
    """The text of a YAML file, its line ends as they are.

    Raises:
        InvalidBlockDocument: It cannot be read, or is not UTF-8.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidBlockDocument(f"{file} is not readable YAML: {error.strerror}. Check its rights.") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidBlockDocument(
            f"{file}:{line}: not readable YAML: byte 0x{content[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error


def _read_file(file: Path) -> Iterator[BlockDocument]:
    text = read_text(file)
    try:
        found = read_yaml(text, str(file))
    except InvalidConfig as error:
        raise InvalidBlockDocument(str(error)) from error
    for index, written in enumerate(found):
        if written.value is not None:
            yield _read_document(file, written, index)


def _read_document(file: Path, written: YamlDocument, index: int) -> BlockDocument:
    content = written.value
    if not isinstance(content, dict):
        raise InvalidBlockDocument(
            f"{file}:{written.line}: a document must be a mapping with the keys {', '.join(KEYS)}."
        )
    unknown = set(content) - set(KEYS)
    missing = {"block_type_slug", "name", "model"} - set(content)
    if unknown or missing:
        line = min((written.line_of(key) for key in unknown), default=written.line)
        parts = [f"unknown key {key!r}" for key in sorted(map(str, unknown))]
        parts += [f"missing key {key!r}" for key in sorted(missing)]
        raise InvalidBlockDocument(f"{file}:{line}: {', '.join(parts)}. A document has the keys {', '.join(KEYS)}.")
    for key in ("block_type_slug", "name", "model"):
        if not isinstance(content[key], str):
            raise InvalidBlockDocument(
                f"{file}:{written.line_of(key)}: {key} must be text, not {content[key]!r}. Put it in quotes."
            )
    fields = content.get("fields")
    if not isinstance(fields, dict | None):
        raise InvalidBlockDocument(
            f"{file}:{written.line_of('fields')}: fields must be a mapping of names to values, not {fields!r}."
        )
    try:
        check_keys(fields or {})
    except InvalidConfig as error:
        raise InvalidBlockDocument(f"{file}:{written.line_of('fields')}: fields: {error}") from error
    if content.get("rules") is not None:
        fields = _with_rules(file, written, fields or {}, content["rules"])
    model = content["model"]
    if model.partition(":")[0].endswith(".py") and not Path(model).expanduser().is_absolute():
        model = str(file.parent.resolve() / model)
    return BlockDocument(
        file=file,
        block_type_slug=content["block_type_slug"],
        name=content["name"],
        fields=fields or {},
        model=model,
        index=index,
        written=written,
    )


def _with_rules(file: Path, written: YamlDocument, fields: dict[str, Any], rules: Any) -> dict[str, Any]:
    place = f"{file}:{written.line_of('rules')}"
    if not isinstance(rules, list) or not all(isinstance(one, dict) for one in rules):
        raise InvalidBlockDocument(
            f"{place}: rules must be a list of mappings with the keys {', '.join(RULE_KEYS)}, not {rules!r}."
        )
    if FIELD in fields:
        raise InvalidBlockDocument(f"{place}: rules stand here and in fields, {FIELD}. Write them in one place.")
    return {**fields, FIELD: rules}


def build_configs(
    documents: list[BlockDocument], config_type_of: Callable[[str], type[ModelConfig]]
) -> list[tuple[BlockDocument, ModelConfig]]:
    """The config that each document describes. All are checked, before anything is done with one.

    Args:
        config_type_of: Gives the config class of a model reference.

    Raises:
        InvalidBlockDocument: A document names a model that is not there, another block type than its model has, or
            an unusable name.
        InvalidConfig: A value does not fit its field.
    """
    types: dict[str, tuple[type[ModelConfig], str]] = {}
    for document in documents:
        if document.model not in types:
            try:
                found = config_type_of(document.model)
            except ModelError as error:
                raise InvalidBlockDocument(f"{document.place('model')}: {error}") from error
            types[document.model] = found, found.get_block_type_slug()
    return [(document, _build(document, *types[document.model])) for document in documents]


def _build(document: BlockDocument, config_type: type[ModelConfig], slug: str) -> ModelConfig:
    if slug != document.block_type_slug:
        raise InvalidBlockDocument(
            f"{document.place('block_type_slug')}: block_type_slug is {document.block_type_slug!r}, but the config of "
            f"{document.model} is of type {slug!r}. Write that, or name the model that the config is for."
        )
    try:
        _NAME.validate_python(document.name)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InvalidBlockDocument(
            f"{document.place('name')}: the name {document.name!r} is not usable: {reason}"
        ) from error
    try:
        config = config_type.model_validate(document.fields)
    except ValidationError as error:
        place = document.place("fields", *error.errors()[0]["loc"])
        # Not as the cause: a traceback would repeat the value, which may be secret.
        raise InvalidConfig(f"{place}: {explain(error)}. Correct it; {_fields_of(config_type)}") from None
    for found in find_trouble(config):
        raise InvalidConfig(f"{document.place('fields', *found.path)}: {'.'.join(found.path)}: {found.text}")
    for trouble in read_rules(config)[1]:
        path = (trouble.index,) if trouble.key is None else (trouble.index, trouble.key)
        raise InvalidConfig(f"{document.place('rules', *path)}: {trouble.text}")
    return config


def check_configs(configs: Sequence[tuple[BlockDocument, ModelConfig]]) -> list[Diagnostic]:
    """What the rules find in the configs of documents: the findings of a run, with the place of the document."""
    return [
        replace(found, message=f"{document.place()}: {document.slug}: {found.message}")
        for document, config in configs
        for found in check_rules(config)
    ]


def _fields_of(config_type: type[ModelConfig]) -> str:
    names = [found.alias or name for name, found in config_type.model_fields.items() if name not in _NO_FIELDS]
    return f"{config_type.__name__} has the fields {', '.join(names)}."


async def find_config(config_type: type[ModelConfig], name: str) -> ModelConfig | None:
    """Load a saved config; None if there is none of that name and type.

    Raises:
        InvalidConfig: It was saved when its class had other fields.
    """
    try:
        loaded = await config_type.aload(name)
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise
        return None
    except RuntimeError as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        raise InvalidConfig(
            f"The saved config {name!r} does not fit {config_type.__name__}: {explain(error.__cause__)}. "
            "Save it again, in Prefect's UI under Blocks or with: chapkit-flows blocks apply blocks/"
        ) from error
    assert isinstance(loaded, config_type)
    return loaded


async def load_config(config_type: type[ModelConfig], name: str) -> ModelConfig:
    """Load a saved config.

    Raises:
        ConfigNotFound: There is none of that name and type; the message lists those there are.
    """
    config = await find_config(config_type, name)
    if config is None:
        known = ", ".join(await saved_names(config_type)) or "none"
        raise ConfigNotFound(
            f"There is no saved config {name!r} of type {config_type.get_block_type_slug()} (saved: {known}). "
            "Save one in Prefect's UI under Blocks, or with: chapkit-flows blocks apply blocks/"
        )
    return config


async def saved_names(config_type: type[Block]) -> list[str]:
    """The names of the saved configs of a type, sorted."""
    async with get_client() as client:
        try:
            saved = await client.read_block_documents_by_type(config_type.get_block_type_slug(), include_secrets=False)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 404:  # no config of that type was ever saved
                raise
            return []
    return sorted(document.name for document in saved if document.name)
