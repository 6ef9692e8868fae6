"""The history of named configs, in the database and beside the objects: it outlives either."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from chapkit_flows.artifacts.store import Store
from chapkit_flows.lineage import configs
from chapkit_flows.lineage.facts import ConfigEntry, NewEntry
from chapkit_flows.refs import ConfigRef
from chapkit_flows.resources import Resources


def record_config(resources: Resources, ref: ConfigRef, new: NewEntry) -> ConfigEntry:
    """Record the content that a saved config has now, as `lineage.configs.record_config`, with a manifest.

    Args:
        resources: To write.
        ref: What `configs.versions.config_version` makes of the config; it must have the name it is saved under.
        new: How it came.

    Returns:
        The new entry; the last one, if that says the same.

    Raises:
        LineageError: The database cannot be written.
        StoreUnavailable: The store cannot be used; nothing is recorded then.
    """
    resources.store.check()  # a silent one is found out here, not while others wait for the database
    keep = partial(write_entry, resources.store)
    return configs.record_config(resources.database, ref, new, keep=keep)[0]


def write_entry(store: Store, entry: ConfigEntry, document: Mapping[str, Any]) -> None:
    """Write the manifest of an entry: before its row, which a process may not live to write."""
    store.write_manifest(f"{configs.MANIFESTS}/{entry.id}", document)


def keep_entry(resources: Resources, entry: ConfigEntry) -> None:
    """Write the manifest of an entry that is recorded."""
    write_entry(resources.store, entry, configs.entry_document(resources.database, entry))
