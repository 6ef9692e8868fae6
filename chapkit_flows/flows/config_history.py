"""The history of named configs, in the database and beside the objects: it outlives either."""

from __future__ import annotations

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
        StoreUnavailable: The store cannot be written; the entry is recorded, but would not survive a rebuild.
    """
    entry, is_new = configs.record_config(resources.database, ref, new)
    if is_new:
        keep_entry(resources, entry)
    return entry


def keep_entry(resources: Resources, entry: ConfigEntry) -> None:
    """Write the manifest of an entry."""
    document = configs.entry_document(resources.database, entry)
    resources.store.write_manifest(f"{configs.MANIFESTS}/{entry.id}", document)
