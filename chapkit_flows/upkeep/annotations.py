"""Tags and notes that outlive the database: their history is also kept beside the objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chapkit_flows.artifacts.store import Store
from chapkit_flows.lineage.annotations import add_note as record_note
from chapkit_flows.lineage.annotations import history
from chapkit_flows.lineage.annotations import remove_tags as record_removal
from chapkit_flows.lineage.annotations import set_tags as record_tags
from chapkit_flows.lineage.facts import Annotation
from chapkit_flows.resources import Resources

ANNOTATIONS = "annotations"


def set_tags(resources: Resources, subject_id: str, tags: Mapping[str, str], *, by: str) -> dict[str, str]:
    """As `lineage.annotations.set_tags`, with a manifest."""
    standing = record_tags(resources.database, subject_id, tags, by=by)
    keep_history(resources, subject_id)
    return standing


def remove_tags(resources: Resources, subject_id: str, keys: Iterable[str], *, by: str) -> dict[str, str]:
    """As `lineage.annotations.remove_tags`, with a manifest."""
    standing = record_removal(resources.database, subject_id, keys, by=by)
    keep_history(resources, subject_id)
    return standing


def add_note(resources: Resources, subject_id: str, text: str, *, by: str) -> Annotation:
    """As `lineage.annotations.add_note`, with a manifest."""
    note = record_note(resources.database, subject_id, text, by=by)
    keep_history(resources, subject_id)
    return note


def keep_history(resources: Resources, subject_id: str) -> None:
    """Write all that was said of a run or an artifact. The last of two writers at once writes what both have said."""
    said = history(resources.database, subject_id)
    while True:
        write_history(resources.store, subject_id, said)
        # Another writer may have said more, and written that, between the look at the database and this writing.
        written, said = said, history(resources.database, subject_id)
        if said == written:
            return


def write_history(store: Store, subject_id: str, said: Iterable[Annotation]) -> None:
    """Write what was said of a run or an artifact beside the objects."""
    document = {"subject_id": subject_id, "said": [annotation.to_dict() for annotation in said]}
    store.write_manifest(f"{ANNOTATIONS}/{subject_id}", document)
