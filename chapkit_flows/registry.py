"""A registry that outlives the database: what it says of a model is also kept beside the objects."""

from __future__ import annotations

from chapkit_flows.lineage import registry
from chapkit_flows.lineage.assignments import Assignment, Decision, ModelVersion
from chapkit_flows.resources import Resources

REGISTRY = "registry"


def register(resources: Resources, artifact_id: str, *, by: str, note: str = "") -> ModelVersion:
    """As `lineage.registry.register`, with a manifest."""
    version = registry.register(resources.database, artifact_id, by=by, note=note)
    _keep(resources, version.id, version, None)
    return version


def assign(resources: Resources, version: ModelVersion, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.assign`, with a manifest."""
    change = registry.assign(resources.database, version, alias=alias, decision=decision)
    _keep(resources, change.id, version, change)
    return change


def remove_alias(resources: Resources, model: str, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.remove_alias`, with a manifest."""
    change = registry.remove_alias(resources.database, model, alias=alias, decision=decision)
    _keep(resources, change.id, None, change)
    return change


def promote(
    resources: Resources, version: ModelVersion, *, alias: str, expected: int | None, decision: Decision
) -> Assignment:
    """As `lineage.registry.promote`, with a manifest."""
    change = registry.promote(resources.database, version, alias=alias, expected=expected, decision=decision)
    _keep(resources, change.id, version, change)
    return change


def rollback(resources: Resources, model: str, *, alias: str, decision: Decision) -> Assignment:
    """As `lineage.registry.rollback`, with a manifest."""
    change = registry.rollback(resources.database, model, alias=alias, decision=decision)
    _keep(resources, change.id, registry.find_version(resources.database, model, str(change.number)), change)
    return change


def _keep(resources: Resources, name: str, version: ModelVersion | None, change: Assignment | None) -> None:
    """Write a version, or a change of an alias and the version that it points to, under a name of its own.

    So nobody writes over what another has written, even with a new database that knows nothing of it.
    """
    document = {"version": version and version.to_dict(), "assignment": change and change.to_dict()}
    resources.store.write_manifest(f"{REGISTRY}/{name}", document)
