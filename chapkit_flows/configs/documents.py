"""Config blocks as YAML documents in a folder, and how they reach the Prefect server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.types.names import BlockDocumentName
from pydantic import TypeAdapter, ValidationError

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.versions import explain
from chapkit_flows.configs.yaml_values import check_keys, load_yaml
from chapkit_flows.errors import ConfigNotFound, InvalidBlockDocument, InvalidConfig

KEYS = ("block_type_slug", "name", "fields", "model")
Change = Literal["created", "updated", "unchanged"]
TypeChange = Literal["registered", "updated", "unchanged"]
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
    """

    file: Path
    block_type_slug: str
    name: str
    fields: dict[str, Any]
    model: str

    @property
    def slug(self) -> str:
        """`type/name`, as Prefect writes it."""
        return f"{self.block_type_slug}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What happened to one document."""

    slug: str
    file: Path
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedType:
    """What happened to a block type: to its description, or to its schema."""

    slug: str
    change: TypeChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What happened to all documents and their block types."""

    types: tuple[AppliedType, ...]
    documents: tuple[Applied, ...]

    @property
    def changed(self) -> int:
        """How many of them were written."""
        changes = [*(item.change for item in self.types), *(item.change for item in self.documents)]
        return len(changes) - changes.count("unchanged")


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
    seen: dict[str, Path] = {}
    for document in documents:
        if document.slug in seen:
            raise InvalidBlockDocument(
                f"{document.slug} stands twice: in {seen[document.slug]} and in {document.file}. Rename one."
            )
        seen[document.slug] = document.file
    return documents


def _read_file(file: Path) -> Iterator[BlockDocument]:
    try:
        loaded = load_yaml(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, OSError) as error:
        raise InvalidBlockDocument(f"{file} is not readable YAML: {error}") from error
    except InvalidConfig as error:
        raise InvalidBlockDocument(f"{file}: {error}") from error
    for content in loaded:
        if content is not None:
            yield _read_document(file, content)


def _read_document(file: Path, content: Any) -> BlockDocument:
    if not isinstance(content, dict):
        raise InvalidBlockDocument(f"{file}: a document must be a mapping with the keys {', '.join(KEYS)}.")
    unknown = set(content) - set(KEYS)
    missing = {"block_type_slug", "name", "model"} - set(content)
    if unknown or missing:
        parts = [f"unknown key {key!r}" for key in sorted(map(str, unknown))]
        parts += [f"missing key {key!r}" for key in sorted(missing)]
        raise InvalidBlockDocument(f"{file}: {', '.join(parts)}. A document has the keys {', '.join(KEYS)}.")
    for key in ("block_type_slug", "name", "model"):
        if not isinstance(content[key], str):
            raise InvalidBlockDocument(f"{file}: {key} must be text, not {content[key]!r}. Put it in quotes.")
    fields = content.get("fields")
    if not isinstance(fields, dict | None):
        raise InvalidBlockDocument(f"{file}: fields must be a mapping of names to values, not {fields!r}.")
    try:
        check_keys(fields or {})
    except InvalidConfig as error:
        raise InvalidBlockDocument(f"{file}, fields: {error}") from error
    model = content["model"]
    if ".py" in model and not Path(model).expanduser().is_absolute():
        model = str(file.parent.resolve() / model)
    return BlockDocument(
        file=file,
        block_type_slug=content["block_type_slug"],
        name=content["name"],
        fields=fields or {},
        model=model,
    )


async def apply_documents(
    documents: list[BlockDocument], config_type_of: Callable[[str], type[ModelConfig]]
) -> Application:
    """Register the block types and save the documents; write only what differs.

    All documents are checked before the first is written.

    Args:
        config_type_of: Gives the config class of a model reference.

    Raises:
        InvalidBlockDocument: A document names another block type than its model has, or an unusable name.
        InvalidConfig: A value does not fit its field.
    """
    configs = [(document, _build(document, config_type_of(document.model))) for document in documents]
    types = {type(config).get_block_type_slug(): type(config) for _, config in configs}
    return Application(
        types=tuple([await _register(config_type) for config_type in types.values()]),
        documents=tuple([await _apply(document, config) for document, config in configs]),
    )


def _build(document: BlockDocument, config_type: type[ModelConfig]) -> ModelConfig:
    slug = config_type.get_block_type_slug()
    if slug != document.block_type_slug:
        raise InvalidBlockDocument(
            f"{document.file}: block_type_slug is {document.block_type_slug!r}, but the config of "
            f"{document.model} is of type {slug!r}."
        )
    try:
        _NAME.validate_python(document.name)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InvalidBlockDocument(f"{document.file}: the name {document.name!r} is not usable: {reason}") from error
    try:
        return config_type.model_validate(document.fields)
    except ValidationError as error:
        raise InvalidConfig(f"{document.file}: {explain(error)}") from error


async def _register(config_type: type[ModelConfig]) -> AppliedType:
    before = await _registered(config_type)
    await config_type.aregister_type_and_schema()
    change: TypeChange = "registered" if before is None else "updated"
    if before == await _registered(config_type):
        change = "unchanged"
    return AppliedType(slug=config_type.get_block_type_slug(), change=change)


async def _registered(config_type: type[ModelConfig]) -> tuple[dict[str, Any], bool] | None:
    """What the server knows of a block type, and whether it has the schema that the class has now."""
    async with get_client() as client:
        try:
            known = await client.read_block_type_by_slug(config_type.get_block_type_slug())
        except ObjectNotFound:
            return None
        try:
            await client.read_block_schema_by_checksum(
                config_type._calculate_schema_checksum(), version=config_type.get_block_schema_version()
            )
        except ObjectNotFound:
            return known.model_dump(exclude={"created", "updated"}), False
    return known.model_dump(exclude={"created", "updated"}), True


async def _apply(document: BlockDocument, config: ModelConfig) -> Applied:
    change = await _compare(document.name, config)
    if change != "unchanged":
        await config.asave(document.name, overwrite=True)
    return Applied(slug=document.slug, file=document.file, change=change)


async def _compare(name: str, config: ModelConfig) -> Change:
    try:
        saved = await find_config(type(config), name)
    except InvalidConfig:
        return "updated"  # saved when the class had other fields: to be replaced
    if saved is None:
        return "created"
    return "unchanged" if _content(saved) == _content(config) else "updated"


def _content(config: ModelConfig) -> dict[str, Any]:
    """The values with secrets in plain text, to compare; never to be shown."""
    return config.model_dump(
        mode="json",
        by_alias=True,
        include=set(type(config).model_fields),
        context={"include_secrets": True},
    )


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
