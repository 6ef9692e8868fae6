"""From settings to an open store and an open database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.settings import ChapkitFlowsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Where a run puts its bytes and its facts."""

    store: Store
    database: Database


def open_resources(settings: ChapkitFlowsSettings | None = None) -> Resources:
    """Open what the settings name. Within one process the same settings give the same open connections.

    Raises:
        StoreUnavailable: The store's URL cannot be used.
        LineageError: The database cannot be reached, is locked, or is from a newer version.
    """
    settings = settings or ChapkitFlowsSettings()
    return _open(
        settings.resolved_storage_url(),
        json.dumps(settings.storage_options, sort_keys=True),
        settings.resolved_database_url(),
    )


@lru_cache(maxsize=8)
def _open(storage_url: str, storage_options: str, database_url: str) -> Resources:
    return Resources(
        store=open_store(storage_url, options=json.loads(storage_options)),
        database=open_database(database_url),
    )
