"""The commands that look things up: runs, artifacts, lineage."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chapkit_flows.artifacts.backends import Progress
from chapkit_flows.artifacts.codecs import is_folder
from chapkit_flows.artifacts.store import Store, copy_bytes
from chapkit_flows.artifacts.trees import get_tree, zip_tree
from chapkit_flows.cli.annotations import tags_text
from chapkit_flows.cli.output import (
    describe_artifact,
    flatten,
    how_long,
    print_facts,
    print_json,
    print_line,
    print_table,
    size_text,
    when,
    whole_path,
)
from chapkit_flows.cli.progress import show_transfer
from chapkit_flows.cli.runs import write_prediction
from chapkit_flows.errors import DataError
from chapkit_flows.lineage.annotations import history, load_tags
from chapkit_flows.lineage.configs import find_entry
from chapkit_flows.lineage.deletions import find_deletion, get_usable
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import Annotation, ConfigEntry, Newer, RunFact
from chapkit_flows.lineage.query import get_artifact, get_run, list_artifacts, list_runs, producer
from chapkit_flows.lineage.search import search_artifacts, search_runs
from chapkit_flows.lineage.staleness import stale_reasons
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.resources import Resources, open_facts, open_resources

_LOOKED_THROUGH = 200  # runs, to name models
_AS_CSV = ("prediction", "dataset", "metrics")
_SUFFIXES = {
    "text/csv": ".csv",
    "application/vnd.apache.parquet": ".parquet",
    "application/geo+json": ".geojson",
    "application/json": ".json",
    "image/png": ".png",
}


def list_runs_(options: argparse.Namespace) -> int:
    """Print runs, newest first."""
    database = open_facts()
    chosen = {"flow": options.flow, "model": options.model, "status": options.status}
    if options.where is None:
        runs = list_runs(database, **chosen, limit=options.limit + 1, before=options.before)
    else:
        runs = search_runs(database, options.where, equals=chosen, limit=options.limit + 1, before=options.before)
    if options.json:
        page = runs[: options.limit]
        tags = load_tags(database, [run.id for run in page])
        print_json({"runs": [run.to_dict() | {"tags": tags[run.id]} for run in page]})
        return 0
    rows = [
        (run.id, run.flow, run.model, run.status, when(run.started_at), how_long(run.started_at, run.finished_at))
        for run in runs
    ]
    _print_page(("id", "flow", "model", "status", "started", "took"), rows, options, "runs")
    if not runs:
        _print_known_models(options.model)
    return 0


def show_run(options: argparse.Namespace) -> int:
    """Print all that is known of a run."""
    database = open_facts()
    run = get_run(database, options.id)
    tags, said = _annotations(database, run.id)
    entry = find_entry(database, run.config, at=run.started_at) if run.config else None
    if options.json:
        about = {"config_version": entry.slug if entry else None, "tags": tags}
        print_json(run.to_dict() | about | {"annotations": [item.to_dict() for item in said]})
        return 0
    print_facts([*_run_facts(run, entry), *_annotation_facts(tags, said)])
    for title, edges in (("Read", run.inputs), ("Made", run.outputs)):
        if edges:
            print_line(f"\n{title}")
            rows = [
                (edge.role, edge.artifact.id, edge.artifact.kind, describe_artifact(edge.artifact, run.name_of(edge)))
                for edge in edges
            ]
            print_table(("as", "id", "kind", "what"), rows)
    return 0


def _annotations(database: Database, subject_id: str) -> tuple[dict[str, str], list[Annotation]]:
    return load_tags(database, [subject_id])[subject_id], history(database, subject_id)


def _annotation_facts(tags: dict[str, str], said: list[Annotation]) -> list[tuple[str, object]]:
    notes = [(f"Note by {item.author}", f"{when(item.created_at)}  {item.text}") for item in said if not item.key]
    return [("Tags", tags_text(tags)), *notes] if tags else [*notes]


def _run_facts(run: RunFact, entry: ConfigEntry | None) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("Run", run.id),
        ("Flow", run.flow),
        ("Model", run.model),
        ("Status", run.status),
        ("Started", when(run.started_at)),
        ("Took", how_long(run.started_at, run.finished_at)),
        ("Flow run", " · ".join(part for part in (run.flow_run_name, run.flow_run_id) if part)),
        ("Defined in", run.entrypoint),
    ]
    if run.error:
        facts.append(("Error", run.error))
    facts += flatten(run.parameters)
    if run.config is not None:
        # A name without a number: the saved config was changed for this run.
        name = entry.slug if entry else f"{run.config.name}, changed for this run" if run.config.name else "not saved"
        facts.append(("Config", f"{name}  {run.config.digest}"))
        facts += flatten(run.config.content)
    if run.code is not None:
        changed = ", with local changes" if run.code.dirty else ""
        facts.append(("Code", f"commit {run.code.git_commit}{changed}" if run.code.git_commit else "not in git"))
        facts.append(("Packages", f"Python {run.code.python}, {len(run.code.packages)} packages (see --json)"))
    facts += [(f"  {name}", f"{value:.3f}") for name, value in run.metrics.items()]
    return [fact for fact in facts if fact[1] not in ("", None)]


def list_artifacts_(options: argparse.Namespace) -> int:
    """Print artifacts, newest first."""
    digest = options.digest
    if digest and not digest.startswith("sha256:"):
        digest = f"sha256:{digest}"
    database = open_facts()
    chosen = {"kind": options.kind, "model": options.model, "digest": digest}
    if options.where is None:
        found = list_artifacts(database, **chosen, limit=options.limit + 1, before=options.before)
    else:
        found = search_artifacts(database, options.where, equals=chosen, limit=options.limit + 1, before=options.before)
    if options.json:
        page = found[: options.limit]
        tags = load_tags(database, [artifact.id for artifact in page])
        print_json({"artifacts": [artifact_json(artifact) | {"tags": tags[artifact.id]} for artifact in page]})
        return 0
    rows = [
        (artifact.id, artifact.kind, size_text(artifact.size), when(artifact.created_at), describe_artifact(artifact))
        for artifact in found
    ]
    _print_page(("id", "kind", "size", "made", "what"), rows, options, "artifacts")
    if not found:
        _print_known_models(options.model)
    return 0


def show_artifact(options: argparse.Namespace) -> int:
    """Print all that is known of an artifact."""
    database = open_facts()
    artifact = get_artifact(database, options.id)
    run = producer(database, artifact.id)
    deletion = find_deletion(database, artifact.id)
    tags, said = _annotations(database, artifact.id)
    stale = stale_reasons(database, [artifact.id]).get(artifact.id, ())
    if options.json:
        about = {
            "stale": [asdict(reason) | {"read_at": reason.read_at.isoformat()} for reason in stale],
            "run_id": run.id if run else None,
            "deletion": deletion.to_dict() if deletion else None,
            "tags": tags,
            "annotations": [item.to_dict() for item in said],
        }
        print_json(artifact_json(artifact) | about)
        return 0
    facts: list[tuple[str, object]] = [
        ("Artifact", artifact.id),
        ("Kind", artifact.kind),
        ("Status", artifact.status),
        ("Made", when(artifact.created_at)),
        *([("Deleted", f"{when(deletion.deleted_at)} by {deletion.actor}: {deletion.reason}")] if deletion else []),
        *(("Stale", _stale_text(artifact, reason)) for reason in stale),
        ("By run", run.id if run else "none: it came from outside"),
        ("Digest", artifact.digest),
        ("Size", size_text(artifact.size)),
        ("Type", f"{artifact.media_type} ({artifact.codec})"),
    ]
    facts += flatten(artifact.metadata)
    print_facts([*facts, *_annotation_facts(tags, said)])
    return 0


def _stale_text(artifact: ArtifactRef, reason: Newer) -> str:
    newer = f"{reason.uri} has a newer version {reason.newer}, read {when(reason.read_at)}"
    return newer if reason.dataset == artifact.id else f"made from {reason.dataset}: {newer}"


def artifact_json(artifact: ArtifactRef) -> dict[str, Any]:
    """An artifact as JSON values."""
    return asdict(artifact) | {"created_at": artifact.created_at.isoformat()}


def download_one(options: argparse.Namespace) -> int:
    """Write an artifact to a file or a folder."""
    resources = open_resources()
    artifact = get_usable(resources.database, options.id)
    target: Path = options.out or Path(default_name(artifact))
    if not target.parent.is_dir():
        raise DataError(f"There is no folder {target.parent}. Make it first, or choose another --out.")
    if target.exists():
        raise DataError(f"{target} exists already. Remove it, or choose another --out.")
    write_artifact(resources, artifact, target, show_transfer(artifact.size, options))
    if options.json:
        print_json({"artifact_id": artifact.id, "path": str(target.absolute())})
    else:
        print_line(f"Wrote {target}")
    return 0


def write_artifact(
    resources: Resources, artifact: ArtifactRef, target: Path, show: AbstractContextManager[Progress | None]
) -> None:
    """Write an artifact to a path at which nothing is, in the form that its suffix asks for; `show` how far it is."""
    if artifact.codec == "parquet" and target.suffix == ".csv":
        if artifact.kind not in _AS_CSV:
            refusal = f"{artifact.id} is a table whose index CSV would lose."
            raise DataError(f"{refusal} Choose an --out that ends in .parquet.")
        write_prediction(artifact.id, target)
        return
    with show as progress, whole_path(target) as part:
        _write(resources.store, artifact, part, zipped=target.suffix == ".zip", progress=progress)


def _write(store: Store, artifact: ArtifactRef, target: Path, *, zipped: bool, progress: Progress | None) -> None:
    if is_folder(artifact.codec) and zipped:
        with target.open("wb") as archive:
            zip_tree(store, artifact.digest, archive, progress=progress)
    elif is_folder(artifact.codec):
        get_tree(store, artifact.digest, target, progress=progress)
    else:
        with store.open(artifact.digest, progress=progress) as source, target.open("wb") as sink:
            copy_bytes(source, sink, progress)


def default_name(artifact: ArtifactRef) -> str:
    """What an artifact is called where the user gives no name."""
    name = artifact.metadata.get("name")
    if artifact.kind == "dataset" and name:
        return str(name)
    if artifact.codec == "parquet":
        return f"{artifact.id}.csv" if artifact.kind in _AS_CSV else f"{artifact.id}.parquet"
    suffix = "" if is_folder(artifact.codec) else _SUFFIXES.get(artifact.media_type, ".bin")
    return f"{artifact.id}{suffix}"


def _print_page(
    columns: Sequence[str], rows: Sequence[Sequence[object]], options: argparse.Namespace, what: str
) -> None:
    """Print a page of rows, of which there is one more than the page holds if there is another page."""
    if not rows:
        print_line(f"No {what}." if options.before is None else f"No more {what}.")
        return
    page = rows[: options.limit]
    print_table(columns, page)
    if len(rows) > len(page):
        print_line(f"\nMore: --before {page[-1][0]}")


def _print_known_models(asked: str | None) -> None:
    """After a search for a model that found nothing: the models that there is something of."""
    known = {run.model for run in list_runs(open_facts(), limit=_LOOKED_THROUGH)}
    if asked is not None and asked not in known:
        names = ", ".join(sorted(known)) or "none"
        print_line(f"No run of a model {asked!r} is known. Models that have run lately: {names}.")
