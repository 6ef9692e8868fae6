"""Bringing another content to a saved config, with an entry in its history for what was there and what came."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prefect.client.orchestration import get_client

from chapkit_flows.configs.heads import Head, read_head, write_head
from chapkit_flows.flows.config_history import record_config
from chapkit_flows.lineage.facts import ConfigEntry, NewEntry
from chapkit_flows.refs import ConfigRef
from chapkit_flows.resources import Resources


async def bring_back(
    resources: Resources, ref: ConfigRef, new: NewEntry, *, from_name: str | None = None
) -> ConfigEntry | None:
    """Save a content under the name of `ref`.

    What is saved there now is recorded first, so that it can be brought back in its turn.

    Args:
        resources: To record in.
        ref: The content, under the name to save it by.
        new: How it comes.
        from_name: A saved config of the same type, to take secret values from that the name itself has not.

    Returns:
        The new entry; None if that is what is saved there already.

    Raises:
        ConfigNotFound: The server has no such block type.
        InvalidConfig: A secret value is masked, and there is none to take in its place.
        ConfigChanged: Somebody saved the config meanwhile. It was not written.
    """
    assert ref.name is not None
    async with get_client() as client:
        head = await read_head(client, ref.block_type, ref.name)
        await _record_found(resources, head, new)
        if head.ref is not None and head.ref.digest == ref.digest:
            return None
        secrets: Mapping[str, Any] = {}
        if from_name is not None:
            other = await read_head(client, ref.block_type, from_name)
            secrets = other.document.data if other.document else {}
        await write_head(client, head, ref.content, secrets=secrets)
    return await asyncio.to_thread(record_config, resources, ref, new)


async def _record_found(resources: Resources, head: Head, new: NewEntry) -> None:
    if head.ref is not None:
        found = replace(new, origin="ui", restored=None, note="found on the server before it was overwritten")
        await asyncio.to_thread(record_config, resources, head.ref, found)


async def read_saved(block_type: str, name: str) -> ConfigRef | None:
    """The content that is saved under a name now; None if there is none."""
    async with get_client() as client:
        return (await read_head(client, block_type, name)).ref
