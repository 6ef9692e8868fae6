"""A lost lineage database, made again from the manifests that each run has written beside its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from chapkit_flows.artifacts.manifests import artifact_from_manifest
from chapkit_flows.errors import ArtifactError, ArtifactNotFound, DigestMismatch, InvalidId, LineageError, ObjectMissing
from chapkit_flows.experiments import EXPERIMENTS
from chapkit_flows.lineage.annotations import restore_annotations
from chapkit_flows.lineage.assignments import Assignment, ModelVersion, assignment_from_dict, version_from_dict
from chapkit_flows.lineage.configs import MANIFESTS, restore_entries
from chapkit_flows.lineage.deletions import record_deletions
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.experiments import (
    Experiment,
    Trial,
    experiment_from_dict,
    restore_experiments,
    trial_from_dict,
)
from chapkit_flows.lineage.facts import (
    Deletion,
    RunFact,
    annotation_from_dict,
    deletion_from_dict,
    entry_from_dict,
    run_from_dict,
)
from chapkit_flows.lineage.query import consumers, find_dataset, get_artifact, get_run
from chapkit_flows.lineage.record import restore_runs
from chapkit_flows.lineage.registry import restore_registry
from chapkit_flows.refs import Diagnostic
from chapkit_flows.registry import REGISTRY
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.annotations import ANNOTATIONS
from chapkit_flows.upkeep.trash import FOLDER

_PAGE = 200
_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild recorded.

    Attributes:
        runs: Runs that the database did not have.
        deletions: Entries of the trash that it did not have.
        annotations: Tags and notes that it did not have.
        configs: Entries of the history of named configs that it did not have.
        registrations: Model versions, and changes of aliases, that it did not have.
        experiments: Experiments, and runs in them, that it did not have.
        findings: Manifests that cannot be read.
    """

    runs: int
    deletions: int
    annotations: int
    configs: int
    registrations: int
    experiments: int
    findings: tuple[Diagnostic, ...]


def rebuild(resources: Resources) -> Rebuilt:
    """Record every run, artifact, config and code version, deletion, tag, note, model version and experiment that the
    store has a manifest of.

    What the database has already stays as it is, so that an interrupted rebuild can be run again. Runs that had not
    ended when the database was lost have no manifest.

    Raises:
        StoreUnavailable: The store cannot be read.
        LineageError: The database cannot be written.
    """
    findings: list[Diagnostic] = []
    configs = 0
    for documents in _read_pages(resources, MANIFESTS, findings):
        configs += _restore_configs(resources, documents, findings)
    runs = 0
    for documents in _read_pages(resources, "runs", findings):
        facts = [fact for name, document in documents if (fact := _read_run(name, document, findings)) is not None]
        facts.sort(key=lambda fact: fact.finished_at or fact.started_at)
        runs += restore_runs(resources.database, facts)
    deletions = 0
    for documents in _read_pages(resources, FOLDER, findings):
        found = (_read_deletion(resources, name, document, findings) for name, document in documents)
        deletions += record_deletions(resources.database, [deletion for deletion in found if deletion is not None])
    annotations = 0
    for documents in _read_pages(resources, ANNOTATIONS, findings):
        annotations += sum(_restore_annotations(resources, name, document, findings) for name, document in documents)
    registrations = _restore_registry(resources, findings)
    experiments = _restore_experiments(resources, findings)
    return Rebuilt(
        runs=runs,
        deletions=deletions,
        annotations=annotations,
        configs=configs,
        registrations=registrations,
        experiments=experiments,
        findings=tuple(findings),
    )


def _restore_registry(resources: Resources, findings: list[Diagnostic]) -> int:
    """All at once: versions that were numbered twice, since a database was lost in between, are numbered anew."""
    versions: dict[str, ModelVersion] = {}
    changes: list[tuple[Assignment, str | None]] = []
    for documents in _read_pages(resources, REGISTRY, findings):
        for name, document in documents:
            try:
                version = document["version"] and version_from_dict(document["version"])
                change = document["assignment"] and assignment_from_dict(document["assignment"])
                if version:
                    get_artifact(resources.database, version.artifact_id)
            except (LineageError, ArtifactError, KeyError, TypeError) as error:
                findings.append(_unreadable(name, error))
                continue
            if version:
                versions[version.id] = version
            if change:
                changes.append((change, version.id if version else None))
    return restore_registry(resources.database, list(versions.values()), changes)


def _restore_experiments(resources: Resources, findings: list[Diagnostic]) -> int:
    experiments: dict[str, Experiment] = {}
    trials: list[Trial] = []
    for documents in _read_pages(resources, EXPERIMENTS, findings):
        for name, document in documents:
            try:
                experiment = experiment_from_dict(document["experiment"])
                trial = document["trial"] and trial_from_dict(document["trial"])
                if trial:
                    get_run(resources.database, trial.run_id)
            except (LineageError, KeyError, TypeError) as error:
                findings.append(_unreadable(name, error))
                continue
            experiments[experiment.id] = experiment
            trials += [trial] if trial else []
    return restore_experiments(resources.database, list(experiments.values()), trials)


def _restore_configs(
    resources: Resources, documents: Sequence[tuple[str, dict[str, Any]]], findings: list[Diagnostic]
) -> int:
    """Before the runs: a config version keeps the name and the time of its first use."""
    readable, entries = [], []
    for name, document in documents:
        try:
            entry, digest = entry_from_dict(document["entry"]), document["version"]["digest"]
            if digest != entry.digest:
                raise LineageError(f"it holds the content {digest} of another version than {entry.digest}")
            entries.append(entry)
            readable.append(document)
        except (LineageError, KeyError, TypeError) as error:
            findings.append(_unreadable(name, error))
    return restore_entries(resources.database, readable, entries)


def _restore_annotations(resources: Resources, name: str, document: dict[str, Any], findings: list[Diagnostic]) -> int:
    try:
        said = [annotation_from_dict(item) for item in document["said"]]
        try:
            return restore_annotations(resources.database, document["subject_id"], said)
        except ArtifactNotFound:
            subject = _recorded_id(resources, document["subject_id"])
            moved = [replace(annotation, subject_id=subject) for annotation in said]
            return restore_annotations(resources.database, subject, moved)
    except (LineageError, ArtifactError, KeyError, TypeError) as error:
        findings.append(_unreadable(name, error))
        return 0


def _read_pages(
    resources: Resources, folder: str, findings: list[Diagnostic]
) -> Iterator[Sequence[tuple[str, dict[str, Any]]]]:
    """The documents of a folder with their names, some at a time, in the order of the names."""

    def read(name: str) -> tuple[str, dict[str, Any] | None]:
        try:
            return name, resources.store.read_manifest(name)
        except (DigestMismatch, ObjectMissing) as error:
            findings.append(_unreadable(name, error))
            return name, None

    names = iter(resources.store.manifest_names(folder))
    with ThreadPoolExecutor(_THREADS) as pool:
        while page := list(islice(names, _PAGE)):
            yield [(name, document) for name, document in pool.map(read, page) if document is not None]


def _read_run(name: str, document: dict[str, Any], findings: list[Diagnostic]) -> RunFact | None:
    try:
        return run_from_dict(document)
    except LineageError as error:
        findings.append(_unreadable(name, error))
        return None


def _read_deletion(
    resources: Resources, name: str, document: dict[str, Any], findings: list[Diagnostic]
) -> Deletion | None:
    try:
        deletion = deletion_from_dict(document)
    except LineageError as error:
        findings.append(_unreadable(name, error))
        return None
    try:
        deletion = replace(deletion, artifact_id=_recorded_id(resources, deletion.artifact_id))
    except (ArtifactNotFound, InvalidId) as error:
        findings.append(_unreadable(name, error))
        return None
    return _with_return(resources.database, deletion)


def _recorded_id(resources: Resources, artifact_id: str) -> str:
    """The id that the database has for an artifact.

    Of a run that died between its manifests and its record the manifests are left. It counts as completed then, and
    data that it had brought in has its id, though a later run had recorded the same data under another.

    Raises:
        ArtifactNotFound: It has none.
    """
    try:
        return get_artifact(resources.database, artifact_id).id
    except ArtifactNotFound as absent:
        try:
            artifact = artifact_from_manifest(resources.store.read_manifest(f"artifacts/{artifact_id}"))
        except ObjectMissing:
            raise absent from None
        same = find_dataset(resources.database, artifact.digest, artifact.media_type)
        if artifact.kind != "dataset" or same is None:
            raise
        return same.id


def _unreadable(name: str, error: Exception) -> Diagnostic:
    return Diagnostic.error("manifest_unreadable", f"The manifest {name} is left out: {error}", name)


def _with_return(database: Database, deletion: Deletion) -> Deletion:
    """Data that a run read again after its deletion is out of the trash; that run's manifest is the only trace."""
    if deletion.restored_at is not None:
        return deletion
    later = [
        (run.finished_at, run.id)
        for run in consumers(database, deletion.artifact_id, limit=1000)
        if run.status == "completed" and run.finished_at is not None and run.finished_at > deletion.deleted_at
    ]
    if not later:
        return deletion
    moment, run_id = min(later)
    return replace(deletion, restored_at=moment, restored_by=f"run {run_id}")
