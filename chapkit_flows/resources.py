"""From settings to an open store and an open database."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import lru_cache

from prefect.settings import PREFECT_API_URL

from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.configs.location import load_location
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.settings import ChapkitFlowsSettings

LOCATION_SECONDS = 60
"""A process follows a change of the block that says where the store is within this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Where a run puts its bytes and its facts."""

    store: Store
    database: Database


def open_resources(settings: ChapkitFlowsSettings | None = None) -> Resources:
    """Open what the settings name. Within one process the same settings give the same open connections.

    Raises:
        StoreUnavailable: The store's URL cannot be used.
        ConfigNotFound: The block that says where the store is does not exist.
        ServerUnavailable: The Prefect server, which keeps that block, does not answer.
        LineageError: The database cannot be reached, is locked, or is from a newer version.
    """
    settings = settings or ChapkitFlowsSettings()
    return _pair(open_artifacts(settings), open_facts(settings))


def open_facts(settings: ChapkitFlowsSettings | None = None) -> Database:
    """Open the database alone: to look something up needs neither the store nor the server that knows where it is.

    Raises:
        LineageError: The database cannot be reached, is locked, or is from a newer version.
    """
    return _open_database((settings or ChapkitFlowsSettings()).resolved_database_url())


def open_artifacts(settings: ChapkitFlowsSettings) -> Store:
    """Open the store alone.

    Raises:
        StoreUnavailable: The store's URL cannot be used.
        ConfigNotFound: The block that says where the store is does not exist.
        ServerUnavailable: The Prefect server, which keeps that block, does not answer.
    """
    if settings.storage_block:
        window = int(time.monotonic() // LOCATION_SECONDS)
        return _open_store(*_find_location(settings.storage_block, PREFECT_API_URL.value(), window))
    return _open_store(settings.resolved_storage_url(), json.dumps(settings.storage_options, sort_keys=True))


@lru_cache(maxsize=8)
def _find_location(block: str, server: str | None, window: int) -> tuple[str, str]:
    """URL and options as a saved block has them now; asked again in the next window of time."""
    location = load_location(block)
    return location.url, json.dumps(location.options.get_secret_value(), sort_keys=True)


@lru_cache(maxsize=8)
def _open_store(url: str, options: str) -> Store:
    return open_store(url, options=json.loads(options))


@lru_cache(maxsize=8)
def _open_database(url: str) -> Database:
    return open_database(url)


@lru_cache(maxsize=8)
def _pair(store: Store, database: Database) -> Resources:
    return Resources(store=store, database=database)
