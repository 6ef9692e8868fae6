"""Automations as YAML documents in a folder, and how they reach the Prefect server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import ValidationError

from chapkit_flows.configs.yaml_values import load_yaml
from chapkit_flows.errors import InvalidAutomation, InvalidConfig

_NEEDED = {"name", "trigger", "actions"}
_KNOWN = {*AutomationCore.model_fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomationDocument:
    """One YAML document, in the form of Prefect's own, with names in the place of ids.

    Attributes:
        file: Where it stands.
        content: An action names its `deployment` (`flow/name`) or its `block` (`type/name`).
    """

    file: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """By which it is found again on the server."""
        return str(self.content["name"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedAutomation:
    """What happened to one document."""

    name: str
    file: Path
    change: Literal["created", "updated", "unchanged"]


def read_automations(path: Path) -> list[AutomationDocument]:
    """Read a YAML file, or all in a folder.

    Raises:
        InvalidAutomation: A document cannot be read, or two have the same name.
    """
    if not path.exists():
        raise InvalidAutomation(f"There is no file or folder {path}.")
    files = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path]
    documents = [document for file in files for document in _read_file(file)]
    if not documents:
        raise InvalidAutomation(f"{path} holds no automations (*.yaml).")
    seen: dict[str, Path] = {}
    for document in documents:
        if document.name in seen:
            raise InvalidAutomation(
                f"The automation {document.name!r} stands twice: in {seen[document.name]} and in {document.file}. "
                "Rename one."
            )
        seen[document.name] = document.file
    return documents


async def apply_automations(documents: list[AutomationDocument]) -> list[AppliedAutomation]:
    """Create or update the automations by name; all are checked before the first is written.

    Whether one is paused is left to the server, unless its document says so.

    Raises:
        InvalidAutomation: A document is no automation, names a deployment or block that is not on the server, or
            the server has several automations of its name.
    """
    async with get_client() as client:
        checked = [(document, await _build(client, document)) for document in documents]
        known = [await _find(client, document) for document in documents]
        return [await _apply(client, *pair, found) for pair, found in zip(checked, known, strict=True)]


def _read_file(file: Path) -> list[AutomationDocument]:
    try:
        loaded = load_yaml(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, OSError, InvalidConfig) as error:
        raise InvalidAutomation(f"{file} is not readable: {error}") from error
    documents = [content for content in loaded if content is not None]
    for content in documents:
        if not isinstance(content, dict):
            raise InvalidAutomation(f"{file}: an automation is a mapping with the keys {', '.join(sorted(_NEEDED))}.")
        wrong = [f"missing key {key!r}" for key in sorted(_NEEDED - set(content))]
        wrong += [f"unknown key {key!r}" for key in sorted(map(str, set(content) - _KNOWN))]
        if wrong:
            raise InvalidAutomation(f"{file}: {', '.join(wrong)}. The keys are {', '.join(sorted(_KNOWN))}.")
    return [AutomationDocument(file=file, content=content) for content in documents]


async def _build(client: PrefectClient, document: AutomationDocument) -> AutomationCore:
    actions = document.content["actions"]
    if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
        raise InvalidAutomation(f"{document.file}: actions must be a list of mappings, each with a type.")
    resolved = [await _resolve(client, document, action) for action in actions]
    try:
        return AutomationCore.model_validate({**document.content, "actions": resolved})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidAutomation(f"{document.file}, {place}: {first['msg']}.") from error


async def _resolve(client: PrefectClient, document: AutomationDocument, action: Mapping[str, Any]) -> dict[str, Any]:
    """Put ids, which differ from server to server, in the place of names."""
    resolved = dict(action)
    deployment, block = resolved.pop("deployment", None), resolved.pop("block", None)
    try:
        if deployment is not None:
            found = await client.read_deployment_by_name(_two_parts(document, deployment))
            resolved |= {"deployment_id": str(found.id), "source": "selected"}
        if block is not None:
            slug, _, name = _two_parts(document, block).partition("/")
            resolved["block_document_id"] = str((await client.read_block_document_by_name(name, slug)).id)
    except ObjectNotFound as error:
        what, remedy = (
            (f"block {block}", "Save it in Prefect's UI under Blocks")
            if block
            else (f"deployment {deployment}", "Deploy it with: prefect --no-prompt deploy --all")
        )
        raise InvalidAutomation(
            f"{document.file}: there is no {what} on the server. {remedy}; or write the name of one that is there."
        ) from error
    return resolved


def _two_parts(document: AutomationDocument, name: Any) -> str:
    if not isinstance(name, str) or name.count("/") != 1:
        raise InvalidAutomation(f"{document.file}: {name!r} is no name. Write flow/deployment, or block-type/name.")
    return name


async def _find(client: PrefectClient, document: AutomationDocument) -> Automation | None:
    found = await client.read_automations_by_name(document.name)
    if len(found) > 1:
        raise InvalidAutomation(
            f"{document.file}: the server has {len(found)} automations called {document.name!r}. Delete all but one: "
            "prefect automation ls"
        )
    return found[0] if found else None


async def _apply(
    client: PrefectClient, document: AutomationDocument, wanted: AutomationCore, known: Automation | None
) -> AppliedAutomation:
    if known is None:
        await client.create_automation(wanted)
        return AppliedAutomation(name=document.name, file=document.file, change="created")
    if "enabled" not in document.content:
        wanted.enabled = known.enabled
    # As Python values: the events that a trigger expects are a set, which has no order.
    same = wanted.model_dump() == known.model_dump(include=set(AutomationCore.model_fields))
    if not same:
        await client.update_automation(known.id, wanted)
    return AppliedAutomation(name=document.name, file=document.file, change="unchanged" if same else "updated")
