"""A registry that outlives the database: what it says of a model is also kept beside the objects."""

from __future__ import annotations

from chapkit_flows.lineage import registry
from chapkit_flows.lineage.assignments import Assignment, Decision, ModelVersion
from chapkit_flows.resources import Resources

REGISTRY = "registry"


def register(resources: Resources, artifact_id: str, *, by: str, note: str = "") -> ModelVersion:
    """As `lineage.registry.register`, with a manifest."""
    version = registry.register(resources.database, artifact_id, by=by, note=note)
    keep_registry(resources, version.model)
    return version


def assign(resources: Resources, version: ModelVersion, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.assign`, with a manifest."""
    change = registry.assign(resources.database, version, alias=alias, decision=decision)
    keep_registry(resources, version.model)
    return change


def remove_alias(resources: Resources, model: str, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.remove_alias`, with a manifest."""
    change = registry.remove_alias(resources.database, model, alias=alias, decision=decision)
    keep_registry(resources, model)
    return change


def promote(
    resources: Resources, version: ModelVersion, *, alias: str, expected: int | None, decision: Decision
) -> Assignment:
    """As `lineage.registry.promote`, with a manifest."""
    change = registry.promote(resources.database, version, alias=alias, expected=expected, decision=decision)
    keep_registry(resources, version.model)
    return change


def rollback(resources: Resources, model: str, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.rollback`, with a manifest."""
    change = registry.rollback(resources.database, model, alias=alias, decision=decision)
    keep_registry(resources, model)
    return change


def keep_registry(resources: Resources, model: str) -> None:
    """Write all that the registry says of a model. The last of two writers at once writes what both have done."""
    document = {
        "model": model,
        "versions": [version.to_dict() for version in registry.scan_versions(resources.database, model)],
        "assignments": [change.to_dict() for change in registry.assignments(resources.database, model)],
    }
    resources.store.write_manifest(f"{REGISTRY}/{model}", document)
