"""Tags and notes that outlive the database: their history is also kept beside the objects, and there first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from chapkit_flows.artifacts.store import Store
from chapkit_flows.lineage import annotations as recorded
from chapkit_flows.lineage.facts import Annotation
from chapkit_flows.refs import check_id
from chapkit_flows.resources import Resources

ANNOTATIONS = "annotations"


def set_tags(resources: Resources, subject_id: str, tags: Mapping[str, str], *, by: str) -> dict[str, str]:
    """As `lineage.annotations.set_tags`, with a manifest."""
    keep = _keeper(resources.store, subject_id)
    return recorded.set_tags(resources.database, subject_id, tags, by=by, keep=keep)


def remove_tags(resources: Resources, subject_id: str, keys: Iterable[str], *, by: str) -> dict[str, str]:
    """As `lineage.annotations.remove_tags`, with a manifest."""
    keep = _keeper(resources.store, subject_id)
    return recorded.remove_tags(resources.database, subject_id, keys, by=by, keep=keep)


def add_note(resources: Resources, subject_id: str, text: str, *, by: str) -> Annotation:
    """As `lineage.annotations.add_note`, with a manifest."""
    keep = _keeper(resources.store, subject_id)
    return recorded.add_note(resources.database, subject_id, text, by=by, keep=keep)


def _keeper(store: Store, subject_id: str) -> recorded.Keep:
    """Writes the history; the store has answered just now, as others wait for the database while it is written.

    Raises:
        StoreUnavailable: The store cannot be used.
    """
    wanted = check_id(subject_id)
    store.reach()
    return partial(write_history, store, wanted)


def write_history(store: Store, subject_id: str, said: Iterable[Annotation]) -> None:
    """Write what was said of a run or an artifact beside the objects."""
    document = {"subject_id": subject_id, "said": [annotation.to_dict() for annotation in said]}
    store.write_manifest(f"{ANNOTATIONS}/{subject_id}", document)
