"""The commands of the registry: model versions and the aliases that say which is in use."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from chapkit_flows import registry
from chapkit_flows.cli.annotations import author_of
from chapkit_flows.cli.output import flatten, print_facts, print_json, print_line, print_table, say, when
from chapkit_flows.errors import ModelVersionNotFound
from chapkit_flows.lineage.assignments import Assignment, Decision, ModelVersion
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.query import producer
from chapkit_flows.lineage.registry import (
    as_of,
    assignments,
    find_version,
    holders,
    list_versions,
    scan_versions,
    version_of,
)
from chapkit_flows.refs import check_id
from chapkit_flows.resources import open_facts, open_resources


def list_models(options: argparse.Namespace) -> int:
    """Print model versions, the last registered first."""
    database = open_facts()
    versions = list_versions(database, model=options.model, limit=options.limit + 1, before=options.before)
    page = versions[: options.limit]
    aliases = _aliases(database, page)
    if options.json:
        print_json({"versions": [version.to_dict() | {"aliases": aliases[version.id]} for version in page]})
        return 0
    if not page:
        say("No model is registered. Register one with: chapkit-flows models register ID")
    rows = [
        (one.name, ", ".join(aliases[one.id]), one.artifact_id, when(one.registered_at), one.registered_by)
        for one in page
    ]
    if rows:
        print_table(("version", "aliases", "artifact", "registered", "by"), rows)
    if len(versions) > options.limit:
        say(f"More: chapkit-flows models list --before {page[-1].artifact_id}")
    return 0


def show_model(options: argparse.Namespace) -> int:
    """Print all that is known of a model version: who registered it, from which training, and its aliases."""
    database = open_facts()
    version = find_model_version(database, options.version) if options.at is None else _then(database, options)
    aliases = _aliases(database, [version])[version.id]
    run = producer(database, version.artifact_id)
    if options.json:
        training = None if run is None else run.to_dict()
        print_json(version.to_dict() | {"aliases": aliases, "training": training})
        return 0
    facts: list[tuple[str, object]] = [
        ("Version", version.name),
        ("Aliases", ", ".join(aliases)),
        ("Trained model", version.artifact_id),
        ("Digest", version.digest),
        ("Registered", f"{when(version.registered_at)} by {version.registered_by}"),
        ("Note", version.note),
    ]
    about = run.output("model").metadata.get("about", {}) if run is not None else {}
    facts += [("About", " "), *flatten(about)] if about else []
    if run is not None:
        facts.append(("Training run", run.id))
        facts += [("Config", " "), *flatten(run.config.content)] if run.config else []
        facts += [(f"Read as {edge.role}", edge.artifact.id) for edge in run.inputs]
    print_facts([(title, value) for title, value in facts if value != ""])
    return 0


def register_model(options: argparse.Namespace) -> int:
    """Give a trained model the next number of its model."""
    version = registry.register(open_resources(), options.id, by=author_of(options), note=options.note)
    if options.json:
        print_json(version.to_dict())
    else:
        print_line(f"{version.artifact_id} is {version.name}")
    return 0


def roll_back_model(options: argparse.Namespace) -> int:
    """Give an alias back to the version that held it before."""
    change = registry.rollback(open_resources(), options.model, alias=options.alias, decision=decision_of(options))
    return tell_change(change, options)


def change_alias(options: argparse.Namespace) -> int:
    """Point an alias to a version, or remove it."""
    resources = open_resources()
    if options.remove:
        model = options.version.partition("@")[0]
        change = registry.remove_alias(resources, model, alias=options.alias, decision=decision_of(options))
    else:
        version = find_model_version(resources.database, options.version)
        change = registry.assign(resources, version, alias=options.alias, decision=decision_of(options))
    return tell_change(change, options)


def show_history(options: argparse.Namespace) -> int:
    """Print what happened to the versions and aliases of a model, the oldest first."""
    database = open_facts()
    versions = scan_versions(database, options.model)
    changes = assignments(database, options.model)
    if options.json:
        found = {
            "versions": [version.to_dict() for version in versions],
            "assignments": [change.to_dict() for change in changes],
        }
        print_json({"model": options.model} | found)
        return 0
    if not versions:
        raise ModelVersionNotFound(
            f"No version of a model {options.model!r} is registered. List them with: chapkit-flows models list"
        )
    events = [
        (version.registered_at, "registered", version.name, version.registered_by, version.note) for version in versions
    ]
    events += [(one.moment, _verb(one), _target(one), one.actor, one.reason) for one in changes]
    rows = [(when(moment), *rest) for moment, *rest in sorted(events)]
    print_table(("when", "what", "which", "by", "why"), rows)
    return 0


def find_model_version(database: Database, text: str) -> ModelVersion:
    """The version that a command names: `rain@3`, `rain@champion`, or the id of a registered model.

    Raises:
        ModelVersionNotFound: There is none.
        InvalidId: It is neither `MODEL@VERSION` nor an id.
    """
    model, at, selector = text.rpartition("@")
    if at:
        return find_version(database, model, selector)
    version = version_of(database, check_id(text))
    if version is None:
        raise ModelVersionNotFound(
            f"{text} is not registered. Register it with: chapkit-flows models register {text.upper()}"
        )
    return version


def _then(database: Database, options: argparse.Namespace) -> ModelVersion:
    """The version to which an alias pointed at a moment."""
    model, _, alias = options.version.rpartition("@")
    change = as_of(database, model, alias, options.at)
    if change is None:
        raise ModelVersionNotFound(f"{options.version} pointed to nothing at {when(options.at)}.")
    return find_version(database, model, str(change.number))


def _aliases(database: Database, versions: Sequence[ModelVersion]) -> dict[str, list[str]]:
    """The aliases of some versions, by the id of the version."""
    held = {model: holders(database, model) for model in {version.model for version in versions}}
    return {
        version.id: [alias for alias, change in held[version.model].items() if change.number == version.number]
        for version in versions
    }


def decision_of(options: argparse.Namespace) -> Decision:
    """Who changes an alias, and why."""
    return Decision(actor=author_of(options), reason=options.reason)


def tell_change(change: Assignment, options: argparse.Namespace) -> int:
    """Print where an alias points now, and by what numbers."""
    if options.json:
        print_json(change.to_dict())
    else:
        before = f", before: version {change.previous}" if change.previous is not None else ""
        held = "nothing" if change.number is None else f"version {change.number}"
        print_line(f"{change.model}@{change.alias} is {held} now{before}")
        for found in (change.evidence or {}).get("findings", ()):
            print_line(f"  {found['message']}")
    return 0


def _verb(change: Assignment) -> str:
    return {"set": "set", "remove": "removed", "promote": "promoted", "rollback": "rolled back"}[change.action]


def _target(change: Assignment) -> str:
    return f"{change.alias} → {'nothing' if change.number is None else f'{change.model}@{change.number}'}"
