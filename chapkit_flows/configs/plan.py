"""What applying YAML documents would change on the Prefect server, and doing it."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate, BlockTypeUpdate
from prefect.client.schemas.objects import BlockDocument as SavedBlock
from prefect.client.schemas.objects import BlockType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import TypeAdapter, ValidationError

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.documents import BlockDocument
from chapkit_flows.errors import ConfigChanged
from chapkit_flows.refs import ConfigRef

Action = Literal["create", "update", "unchanged", "drifted", "extra"]
TypeAction = Literal["register", "update", "unchanged"]
_PAGE = 200  # the most that the server gives at once
_SAVED: TypeAdapter[list[SavedBlock]] = TypeAdapter(list[SavedBlock])
_TYPES: TypeAdapter[list[BlockType]] = TypeAdapter(list[BlockType])
_MISSING: Any = "(absent)"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastApplied:
    """What was last applied under a name, and when."""

    ref: ConfigRef
    at: datetime


FindApplied = Callable[[str, str], LastApplied | None]
"""Block type and name → what was last applied; None where nothing is known of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """How one value differs; secret values are masked on both sides.

    Attributes:
        path: Such as `login.user`.
        before: What the server holds.
        after: What the document says.
    """

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedType:
    """What would happen to a block type: to its description, or to its schema."""

    config_type: type[ModelConfig]
    action: TypeAction

    @property
    def slug(self) -> str:
        """The block type."""
        return self.config_type.get_block_type_slug()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDocument:
    """What would happen to one saved config.

    Attributes:
        document: Where it is written; None for one that is on the server only (`extra`).
        changes: What differs, server against document.
        file_changed: Of one that drifted: whether the document was changed since it was applied, too.
        config: What the document says.
        saved: What the server holds.
        applied: What the history says was last applied; looked up only where server and document differ.
    """

    slug: str
    action: Action
    document: BlockDocument | None = None
    changes: tuple[FieldChange, ...] = ()
    file_changed: bool = False
    config: ModelConfig | None = field(default=None, repr=False)
    saved: SavedBlock | None = field(default=None, repr=False)
    applied: LastApplied | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """File and line; nothing for one that is on the server only."""
        return self.document.place() if self.document else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would happen to all documents and their block types."""

    types: tuple[PlannedType, ...]
    documents: tuple[PlannedDocument, ...]

    def having(self, *actions: Action) -> tuple[PlannedDocument, ...]:
        """The documents to which that would happen."""
        return tuple(item for item in self.documents if item.action in actions)

    @property
    def changed_types(self) -> tuple[PlannedType, ...]:
        """The block types that would be written."""
        return tuple(item for item in self.types if item.action != "unchanged")


async def make_plan(configs: Sequence[tuple[BlockDocument, ModelConfig]], find_applied: FindApplied) -> Plan:
    """Compare documents with what the server holds. Nothing is written.

    Args:
        configs: As `build_configs` gives them.
        find_applied: Tells what was edited on the server from what was edited in the file.
    """
    types = {document.block_type_slug: type(config) for document, config in configs}
    async with get_client() as client:
        known = await _read_types(client, list(types))
        planned = [await _plan_type(client, config_type, known.get(slug)) for slug, config_type in types.items()]
        saved = await _read_saved(client, known)
    documents = [_plan_document(item, saved.pop(item[0].slug, None), find_applied) for item in configs]
    extra = [PlannedDocument(slug=slug, action="extra", saved=block) for slug, block in saved.items()]
    return Plan(types=tuple(planned), documents=(*documents, *extra))


async def _read_types(client: PrefectClient, slugs: list[str]) -> dict[str, BlockType]:
    content = {"block_types": {"slug": {"any_": slugs}}, "limit": _PAGE}
    answer = await client.request("POST", "/block_types/filter", json=content)
    return {found.slug: found for found in _TYPES.validate_python(answer.json())}


async def _read_saved(client: PrefectClient, types: Mapping[str, BlockType]) -> dict[str, SavedBlock]:
    """The saved blocks of some types, secrets included: to compare, never to be shown."""
    if not types:
        return {}
    slugs = {found.id: slug for slug, found in types.items()}
    content: dict[str, Any] = {
        "block_documents": {"block_type_id": {"any_": [str(key) for key in slugs]}, "is_anonymous": {"eq_": False}},
        "include_secrets": True,
        "limit": _PAGE,
    }
    saved: dict[str, SavedBlock] = {}
    for offset in range(0, 1_000_000, _PAGE):
        answer = await client.request("POST", "/block_documents/filter", json=content | {"offset": offset})
        page = _SAVED.validate_python(answer.json())
        saved |= {f"{slugs[block.block_type_id]}/{block.name}": block for block in page}
        if len(page) < _PAGE:
            break
    return saved


async def _plan_type(client: PrefectClient, config_type: type[ModelConfig], known: BlockType | None) -> PlannedType:
    action: TypeAction = "register"
    if known is not None:
        described = _described(config_type._to_block_type()) == _described(known)
        action = "unchanged" if described and await _has_schema(client, config_type) else "update"
    return PlannedType(config_type=config_type, action=action)


def _described(block_type: BlockType) -> dict[str, str]:
    content = block_type.model_dump(mode="json", include=BlockTypeUpdate.updatable_fields())
    return {name: html.unescape(str(value)) for name, value in content.items()}


async def _has_schema(client: PrefectClient, config_type: type[ModelConfig]) -> bool:
    try:
        await client.read_block_schema_by_checksum(
            config_type._calculate_schema_checksum(), version=config_type.get_block_schema_version()
        )
    except ObjectNotFound:
        return False
    return True


def _plan_document(
    item: tuple[BlockDocument, ModelConfig], saved: SavedBlock | None, find_applied: FindApplied
) -> PlannedDocument:
    document, config = item
    planned = PlannedDocument(slug=document.slug, action="create", document=document, config=config, saved=saved)
    if saved is None:
        return planned
    there = read_saved(type(config), saved)
    if there is None:
        return replace(planned, action="update")  # saved when the class had other fields: to be replaced
    changes = tuple(compare(there, config))
    if not changes:
        return replace(planned, action="unchanged")
    planned = replace(planned, applied=find_applied(document.block_type_slug, document.name))
    drifted, file_changed = _drift(there, planned)
    return replace(planned, action="drifted" if drifted else "update", changes=changes, file_changed=file_changed)


def _drift(there: ModelConfig, planned: PlannedDocument) -> tuple[bool, bool]:
    """Whether the server's content was edited since it was applied, and whether the document was."""
    applied = _restore(planned.applied, type(there))
    if planned.applied is None or planned.saved is None or applied is None or planned.config is None:
        return False, True  # nothing is known of it: the document counts
    edited_there, edited_here = there.values() != applied.values(), planned.config.values() != applied.values()
    if edited_there or edited_here:
        return edited_there, edited_here
    # Only secret values differ, of which the history keeps nothing: the time tells whose is newer.
    return planned.saved.updated is not None and planned.saved.updated > planned.applied.at, False


def _restore(applied: LastApplied | None, config_type: type[ModelConfig]) -> ModelConfig | None:
    """What was applied, as the class reads it now: fields that it has gained have their defaults."""
    try:
        return config_type.model_validate(dict(applied.ref.content)) if applied else None
    except ValidationError:
        return None


def read_saved(config_type: type[ModelConfig], saved: SavedBlock) -> ModelConfig | None:
    """The config that the server holds; None if it does not fit its class any more."""
    try:
        config = config_type.model_validate(saved.data)
    except ValidationError:
        return None
    config._block_document_name = saved.name
    return config


def compare(before: ModelConfig, after: ModelConfig) -> Iterator[FieldChange]:
    """What differs between two configs of a type, by path; secret values are compared, and masked."""
    values = (before.values(reveal=True), after.values(reveal=True))
    if repr(values[0]) == repr(values[1]):
        return
    yield from _compare(values, (before.values(), after.values()), ())


def _compare(values: tuple[Any, Any], shown: tuple[Any, Any], path: tuple[str, ...]) -> Iterator[FieldChange]:
    before, after = values
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            inner = (before.get(key, _MISSING), after.get(key, _MISSING))
            yield from _compare(inner, (_part(shown[0], key), _part(shown[1], key)), (*path, key))
    elif (
        before is _MISSING
        or after is _MISSING
        or before != after
        or isinstance(before, bool) != isinstance(after, bool)
    ):
        yield FieldChange(path=".".join(path), before=shown[0], after=shown[1])


def _part(shown: Any, key: str) -> Any:
    return shown.get(key, _MISSING) if isinstance(shown, dict) else shown  # a mask hides all that is in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was done, to a block type (`document` is None) or to a saved config."""

    slug: str
    change: Literal["registered", "created", "updated", "deleted"]
    document: PlannedDocument | None = None


async def carry_out(plan: Plan, *, overwrite: bool = False, prune: bool = False) -> AsyncIterator[Written]:
    """Write what differs, and tell of each thing once it is written.

    Args:
        overwrite: Whether what was edited on the server is overwritten.
        prune: Whether saved configs that stand in no document are deleted.

    Raises:
        ConfigChanged: Somebody saved one of them since the plan was made.
    """
    due = [*plan.having("create", "update"), *(plan.having("drifted") if overwrite else ())]
    async with get_client() as client:
        for planned in plan.types:
            if planned.action != "unchanged" or any(type(item.config) is planned.config_type for item in due):
                await planned.config_type.aregister_type_and_schema(client=client)
            if planned.action != "unchanged":
                yield Written(slug=planned.slug, change="registered" if planned.action == "register" else "updated")
        for item in due:
            await _write(client, item)
            yield Written(slug=item.slug, change="created" if item.saved is None else "updated", document=item)
        for item in plan.having("extra") if prune else ():
            assert item.saved is not None
            await _check_unchanged(client, item)
            await client.delete_block_document(item.saved.id)
            yield Written(slug=item.slug, change="deleted", document=item)


async def _write(client: PrefectClient, item: PlannedDocument) -> None:
    assert item.config is not None
    assert item.document is not None
    content = item.config._to_block_document(name=item.document.name, include_secrets=True).model_dump()
    if item.saved is None:
        names = ("name", "block_schema_id", "block_type_id", "data", "is_anonymous")
        try:
            await client.create_block_document(BlockDocumentCreate(**{name: content[name] for name in names}))
        except ObjectAlreadyExists as error:
            raise _changed(item) from error
        return
    await _check_unchanged(client, item)
    # Not merged: a field that the class has lost would stay in the saved block.
    update = BlockDocumentUpdate(
        block_schema_id=content["block_schema_id"], data=content["data"], merge_existing_data=False
    )
    await client.update_block_document(item.saved.id, update)


async def _check_unchanged(client: PrefectClient, item: PlannedDocument) -> None:
    """Refuse to lose what somebody saved while the plan was read."""
    assert item.saved is not None
    try:
        found = await client.read_block_document(item.saved.id, include_secrets=False)
    except ObjectNotFound as error:
        raise _changed(item) from error
    if found.updated != item.saved.updated:
        raise _changed(item)


def _changed(item: PlannedDocument) -> ConfigChanged:
    return ConfigChanged(
        f"{item.slug} was changed on the server while this plan was carried out. It was not written; apply again to "
        "see what it is now."
    )
