"""Applying and pulling documents, with an entry in the history of each config for what was done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.documents import BlockDocument
from chapkit_flows.configs.plan import LastApplied, Plan, PlannedDocument, Written, carry_out, make_plan, read_saved
from chapkit_flows.configs.pull import Pulled, pull_documents
from chapkit_flows.configs.versions import config_version
from chapkit_flows.flows.config_history import record_config
from chapkit_flows.lineage.configs import last_applied, load_content
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import NewEntry, Origin
from chapkit_flows.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who applies, and what people should know of it."""

    name: str
    note: str | None = None

    def entry(self, origin: Origin, note: str | None = None) -> NewEntry:
        """How a content came to be."""
        return NewEntry(origin=origin, author=self.name, note=note or self.note)


async def plan_documents(database: Database, configs: Sequence[tuple[BlockDocument, ModelConfig]]) -> Plan:
    """Compare documents with the server, and with what was last applied."""

    def find(block_type: str, name: str) -> LastApplied | None:
        entry = last_applied(database, block_type, name)
        return LastApplied(ref=load_content(database, entry), at=entry.created_at) if entry else None

    return await make_plan(configs, find)


async def apply_plan(
    resources: Resources, plan: Plan, author: Author, *, overwrite: bool = False, prune: bool = False
) -> AsyncIterator[Written]:
    """Carry out a plan, and tell of each thing once it is written and recorded.

    What is overwritten or deleted on the server is recorded first, so that it can be brought back.

    Raises:
        ConfigChanged: Somebody saved one of the configs since the plan was made.
    """
    for item in (
        *plan.having("update", *(("drifted",) if overwrite else ())),
        *(plan.having("extra") if prune else ()),
    ):
        _record_found(resources, plan, item, author)
    for item in plan.having("unchanged"):
        _record_applied(resources, item, author)
    async for written in carry_out(plan, overwrite=overwrite, prune=prune):
        if written.document is not None and written.change != "deleted":
            _record_applied(resources, written.document, author)
        yield written


def pull_plan(
    resources: Resources, plan: Plan, path: Path, author: Author, *, overwrite: bool = False, new: bool = False
) -> Iterator[Pulled]:
    """Bring to the files what was edited on the server, and tell of each once it is written and recorded."""
    for pulled in pull_documents(plan, path, overwrite=overwrite, new=new):
        if pulled.written is not None:
            entry = author.entry("apply", author.note or f"pulled into {pulled.file}")
            record_config(resources, config_version(pulled.written), entry)
        yield pulled


def _record_applied(resources: Resources, item: PlannedDocument, author: Author) -> None:
    assert item.config is not None
    assert item.document is not None
    item.config._block_document_name = item.document.name
    record_config(resources, config_version(item.config), author.entry("apply"))


def _record_found(resources: Resources, plan: Plan, item: PlannedDocument, author: Author) -> None:
    types = {planned.slug: planned.config_type for planned in plan.types}
    found = read_saved(types[item.slug.partition("/")[0]], item.saved) if item.saved else None
    if found is not None:
        record_config(resources, config_version(found), author.entry("ui"))
