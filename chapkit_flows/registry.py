"""A registry that outlives the database: what it says of a model is also kept beside the objects."""

from __future__ import annotations

from typing import Any

from chapkit_flows.lineage import registry
from chapkit_flows.lineage.assignments import Assignment, Decision, ModelVersion
from chapkit_flows.lineage.deletions import find_deletion, get_usable
from chapkit_flows.resources import Resources

REGISTRY = "registry"


def register(resources: Resources, artifact_id: str, *, by: str, note: str = "") -> ModelVersion:
    """As `lineage.registry.register`, with a manifest.

    Raises:
        ArtifactDeleted: The model is in the trash.
    """
    _check_kept(resources, artifact_id)
    version = registry.register(resources.database, artifact_id, by=by, note=note)
    _keep(resources, version.model)
    return version


def assign(resources: Resources, version: ModelVersion, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.assign`, with a manifest.

    Raises:
        ArtifactDeleted: The model is in the trash: nobody could predict with it.
    """
    _check_kept(resources, version.artifact_id)
    change = registry.assign(resources.database, version, alias=alias, decision=decision)
    _keep(resources, version.model)
    return change


def remove_alias(resources: Resources, model: str, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.remove_alias`, with a manifest."""
    change = registry.remove_alias(resources.database, model, alias=alias, decision=decision)
    _keep(resources, model)
    return change


def promote(
    resources: Resources, version: ModelVersion, *, alias: str, expected: int | None, decision: Decision
) -> Assignment:
    """As `lineage.registry.promote`, with a manifest.

    Raises:
        ArtifactDeleted: The model is in the trash: nobody could predict with it.
    """
    _check_kept(resources, version.artifact_id)
    change = registry.promote(resources.database, version, alias=alias, expected=expected, decision=decision)
    _keep(resources, version.model)
    return change


def rollback(resources: Resources, model: str, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.rollback`, with a manifest.

    Raises:
        ArtifactDeleted: The version before is in the trash: nobody could predict with it.
    """
    before = registry.previous_holder(resources.database, model, alias=alias)
    if before is not None:
        _check_kept(resources, registry.find_version(resources.database, model, str(before)).artifact_id)
    change = registry.rollback(resources.database, model, alias=alias, decision=decision)
    _keep(resources, model)
    return change


def _check_kept(resources: Resources, artifact_id: str) -> None:
    if find_deletion(resources.database, artifact_id.strip().upper()[:26]) is not None:
        get_usable(resources.database, artifact_id)


def _keep(resources: Resources, model: str) -> None:
    """Write what has no manifest yet; also what a process has recorded that died before it wrote this.

    Each version, and each change of an alias with the version that it points to, has a document of its own: so nobody
    writes over what another has written, even with a new database that knows nothing of it.
    """
    there = set(resources.store.manifest_names(REGISTRY))
    versions = {version.number: version for version in registry.scan_versions(resources.database, model)}
    documents: dict[str, dict[str, Any]] = {}
    # To make a document costs more than to find that it is there, and nearly all are.
    for version in versions.values():
        if f"{REGISTRY}/{version.id}" not in there:
            documents[version.id] = {"version": version.to_dict(), "assignment": None}
    for change in registry.assignments(resources.database, model):
        if f"{REGISTRY}/{change.id}" not in there:
            target = versions.get(change.number) if change.number is not None else None
            documents[change.id] = {"version": target and target.to_dict(), "assignment": change.to_dict()}
    for key, document in documents.items():
        resources.store.write_manifest(f"{REGISTRY}/{key}", document)
