"""Saved configs as the Prefect server holds them, read and written without the class that made them.

Prefect cannot write a block document only if nobody else has: its API has no compare-and-swap. So `write_head` reads
the time of the last change again, directly before it writes, and refuses if that is not the one that was read. What
another writer saves within that one round trip to the server is overwritten, and Prefect's own UI asks nobody at all.
That is why whoever overwrites a head records first, in the history, what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate
from prefect.client.schemas.objects import BlockDocument, BlockSchema
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from chapkit_flows.configs.references import MASK, show_references
from chapkit_flows.configs.rules import FIELD
from chapkit_flows.configs.versions import config_ref
from chapkit_flows.errors import ConfigChanged, ConfigNotFound, InvalidConfig
from chapkit_flows.refs import ConfigRef

_OPTIONS = "additional_options"
_PREFECTS = ("block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A saved config, or the place for one.

    Attributes:
        schema: Of the block type: which values are fields, and which are secret.
        document: What is saved, secrets included; None if nothing is.
    """

    block_type: str
    name: str
    schema: BlockSchema
    document: BlockDocument | None

    @property
    def slug(self) -> str:
        """`type/name`, as Prefect writes it."""
        return f"{self.block_type}/{self.name}"

    @property
    def ref(self) -> ConfigRef | None:
        """The version that is saved: what `config_version` makes of it once it is loaded; secrets masked."""
        if self.document is None:
            return None
        revealed = self.document.data
        masked = dict(revealed)
        for path in self.schema.fields.get("secret_fields", []):
            _mask(masked, path.split("."))
        content = _flatten(show_references(masked, revealed))
        return config_ref(self.block_type, self.name, content)


async def read_head(client: PrefectClient, block_type: str, name: str) -> Head:
    """Read a saved config.

    Raises:
        ConfigNotFound: The server has no such block type.
    """
    try:
        document = await client.read_block_document_by_name(name, block_type, include_secrets=True)
    except ObjectNotFound:
        document = None
    if document is not None and document.block_schema is not None:
        return Head(block_type=block_type, name=name, schema=document.block_schema, document=document)
    try:
        found = await client.read_block_type_by_slug(block_type)
        schema = await client.get_most_recent_block_schema_for_block_type(found.id)
    except ObjectNotFound:
        schema = None
    if schema is None:
        raise ConfigNotFound(
            f"The Prefect server has no block type {block_type}. Register it with: chapkit-flows blocks apply blocks/"
        )
    return Head(block_type=block_type, name=name, schema=schema, document=document)


async def write_head(
    client: PrefectClient, head: Head, content: Mapping[str, Any], *, secrets: Mapping[str, Any] | None = None
) -> None:
    """Save another content under the name of a head that was read.

    Masked values are never written: the values that the head has now stay.

    Args:
        client: Of the server.
        head: As it was read.
        content: The values of a version.
        secrets: Data of another head, to take secret values from that this one has not.

    Raises:
        InvalidConfig: A value is masked, and there is none to take in its place.
        ConfigChanged: Somebody saved it since it was read. It was not written.
    """
    data = _nest(content, head.schema)
    for source in (head.document.data if head.document else {}, secrets or {}):
        data = {key: unmask(value, source.get(key)) for key, value in data.items()}
    masked = sorted(key for key, value in data.items() if is_masked(value))
    if masked:
        raise InvalidConfig(
            f"The version has secret values ({', '.join(masked)}), which the history does not keep, and {head.slug} "
            "has none to take in their place. Save it with them in Prefect's UI under Blocks, and try again."
        )
    if head.document is None:
        await _create(client, head, data)
        return
    await _check_unchanged(client, head, head.document)
    # Not merged: a value that this version does not have would stay.
    update = BlockDocumentUpdate(data=data, merge_existing_data=False)
    await client.update_block_document(head.document.id, update)


async def _create(client: PrefectClient, head: Head, data: dict[str, Any]) -> None:
    assert head.schema.block_type_id is not None
    created = BlockDocumentCreate(
        name=head.name, data=data, block_schema_id=head.schema.id, block_type_id=head.schema.block_type_id
    )
    try:
        await client.create_block_document(created)
    except ObjectAlreadyExists as error:
        raise _changed(head) from error


async def _check_unchanged(client: PrefectClient, head: Head, document: BlockDocument) -> None:
    try:
        found = await client.read_block_document(document.id, include_secrets=False)
    except ObjectNotFound as error:
        raise _changed(head) from error
    if found.updated != document.updated:
        raise _changed(head)


def _changed(head: Head) -> ConfigChanged:
    return ConfigChanged(
        f"{head.slug} was changed on the server meanwhile. It was not written. Look at what it is now with "
        f"`chapkit-flows configs diff {head.slug}@N {head.slug}`, and try again."
    )


def _flatten(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stored data as `ModelConfig.values` gives it."""
    content = {key: value for key, value in data.items() if key not in (_OPTIONS, *_PREFECTS)}
    if not content.get(FIELD):
        content.pop(FIELD, None)
    return dict(data.get(_OPTIONS) or {}) | content


def _nest(content: Mapping[str, Any], schema: BlockSchema) -> dict[str, Any]:
    """The values of a version as they are stored: those that are no fields among the additional options."""
    fields = schema.fields.get("properties", {})
    options = {key: value for key, value in content.items() if key not in fields}
    return {key: value for key, value in content.items() if key in fields} | {_OPTIONS: options}


def _mask(value: Any, path: list[str]) -> None:
    if not isinstance(value, dict) or path[0] not in value:
        return
    key, rest = path[0], path[1:]
    if rest and rest != ["*"]:
        value[key] = dict(value[key]) if isinstance(value[key], dict) else value[key]
        _mask(value[key], rest)
    else:
        value[key] = _masked(value[key], whole=bool(rest))


def _masked(value: Any, *, whole: bool) -> Any:
    """As pydantic writes a secret: nothing stays nothing."""
    if isinstance(value, list) and not whole:
        return [_masked(item, whole=False) for item in value]
    return None if value is None else MASK if value else ""


def is_masked(value: Any) -> bool:
    """Whether a value, or one within it, is what takes the place of a secret."""
    if isinstance(value, dict):
        return any(map(is_masked, value.values()))
    if isinstance(value, list):
        return any(map(is_masked, value))
    return isinstance(value, str) and len(value) >= 8 and set(value) == {"*"}


def unmask(value: Any, source: Any) -> Any:
    """A value with those of another in the place of masks."""
    if isinstance(value, dict) and isinstance(source, dict):
        return {key: unmask(item, source.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(source, list) and len(value) == len(source):
        return [unmask(item, other) for item, other in zip(value, source, strict=True)]
    return source if source not in (None, "", {}) and not isinstance(value, dict | list) and is_masked(value) else value
