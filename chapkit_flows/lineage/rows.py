"""Between rows and frozen values: the only functions that see both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.lineage.facts import Edge, Reading, RunFact
from chapkit_flows.lineage.tables import (
    ArtifactRow,
    CodeVersionRow,
    ConfigVersionRow,
    MetricRow,
    ReadingRow,
    RunArtifactRow,
    RunRow,
)
from chapkit_flows.refs import ArtifactRef, CodeVersion, ConfigRef, Kind, RunRef, RunStatus

Direction = Literal["input", "output"]
VersionRow = TypeVar("VersionRow", ConfigVersionRow, CodeVersionRow)


def make_ingest_key(digest: str, media_type: str) -> str:
    """What makes two datasets the same one."""
    return f"{digest} {media_type}"


def from_run(run: RunRef, config: ConfigRef | None = None) -> RunRow:
    """The row of a run that starts, with its config if that is recorded already."""
    return RunRow(
        id=run.id,
        flow=run.flow,
        model=run.model,
        entrypoint=run.entrypoint,
        flow_run_id=run.flow_run_id,
        flow_run_name=run.flow_run_name,
        status="running",
        started_at=run.started_at,
        parameters=dict(run.parameters),
        config_digest=config.digest if config else None,
        config_name=config.name if config else None,
    )


def from_artifact(artifact: ArtifactRef) -> dict[str, Any]:
    """The columns of an artifact."""
    is_dataset = artifact.kind == "dataset"
    return {
        "id": artifact.id,
        "kind": artifact.kind,
        "level": artifact.level,
        "digest": artifact.digest,
        "size": artifact.size,
        "media_type": artifact.media_type,
        "codec": artifact.codec,
        "status": artifact.status,
        "created_at": artifact.created_at,
        "details": dict(artifact.metadata),
        "ingest_key": make_ingest_key(artifact.digest, artifact.media_type) if is_dataset else None,
    }


def to_artifact(row: ArtifactRow) -> ArtifactRef:
    """The artifact of a row."""
    return ArtifactRef(
        id=row.id,
        kind=cast(Kind, row.kind),
        digest=row.digest,
        size=row.size,
        media_type=row.media_type,
        codec=row.codec,
        level=row.level,
        status=cast(Literal["ok", "failed"], row.status),
        created_at=row.created_at,
        metadata=row.details,
    )


def to_config(row: ConfigVersionRow, name: str | None) -> ConfigRef:
    """The config version of a row, under the name that a run knew it by."""
    return ConfigRef(digest=row.digest, block_type=row.block_type, name=name, content=row.content)


def from_reading(reading: Reading) -> dict[str, Any]:
    """The columns of a reading."""
    return {
        "id": reading.id,
        "uri_digest": reading.uri_digest,
        "uri": reading.uri,
        "run_id": reading.run_id,
        "role": reading.role,
        "artifact_id": reading.artifact_id,
        "read_at": reading.read_at,
    }


def to_reading(row: ReadingRow) -> Reading:
    """The reading of a row."""
    return Reading(
        id=row.id,
        uri_digest=row.uri_digest,
        uri=row.uri,
        run_id=row.run_id,
        role=row.role,
        artifact_id=row.artifact_id,
        read_at=row.read_at,
    )


def to_code(row: CodeVersionRow) -> CodeVersion:
    """The code version of a row."""
    return CodeVersion(
        digest=row.digest,
        git_commit=row.git_commit,
        dirty=row.dirty,
        patch_digest=row.patch_digest,
        source_digest=row.source_digest,
        python=row.python,
        packages=row.packages,
    )


def to_new_run(row: RunRow, config: ConfigRef | None = None) -> RunFact:
    """The fact of a run that has only begun, without asking the database what it read and wrote."""
    configs = {}
    if config is not None:
        configs[config.digest] = ConfigVersionRow(
            digest=config.digest,
            block_type=config.block_type,
            name=config.name,
            content=dict(config.content),
            created_at=row.started_at,
        )
    return _to_run(row, _Surroundings(configs=configs))


def load_runs(session: Session, rows: Sequence[RunRow]) -> list[RunFact]:
    """Everything known of some runs, in their order; as many statements for many runs as for one."""
    ids = [row.id for row in rows]
    known = _Surroundings(
        configs=_load_versions(session, ConfigVersionRow, (row.config_digest for row in rows)),
        codes=_load_versions(session, CodeVersionRow, (row.code_digest for row in rows)),
        edges=_load_edges(session, ids),
        readings=_load_readings(session, ids),
        metrics=_load_metrics(session, ids),
    )
    return [_to_run(row, known) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    configs: Mapping[str, ConfigVersionRow] = field(default_factory=dict)
    codes: Mapping[str, CodeVersionRow] = field(default_factory=dict)
    edges: Mapping[tuple[str, str], Sequence[Edge]] = field(default_factory=dict)
    readings: Mapping[str, Sequence[Reading]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)


def _to_run(row: RunRow, known: _Surroundings) -> RunFact:
    return RunFact(
        id=row.id,
        flow=row.flow,
        model=row.model,
        entrypoint=row.entrypoint,
        flow_run_id=row.flow_run_id,
        flow_run_name=row.flow_run_name,
        started_at=row.started_at,
        parameters=row.parameters,
        status=cast(RunStatus, row.status),
        error=row.error,
        finished_at=row.finished_at,
        config=to_config(known.configs[row.config_digest], row.config_name) if row.config_digest else None,
        code=to_code(known.codes[row.code_digest]) if row.code_digest else None,
        inputs=tuple(known.edges.get((row.id, "input"), ())),
        outputs=tuple(known.edges.get((row.id, "output"), ())),
        readings=tuple(known.readings.get(row.id, ())),
        metrics=known.metrics.get(row.id, {}).get(row.id, {}),
        artifact_metrics={
            subject_id: metrics for subject_id, metrics in known.metrics.get(row.id, {}).items() if subject_id != row.id
        },
    )


def _load_versions(session: Session, table: type[VersionRow], digests: Iterable[str | None]) -> dict[str, VersionRow]:
    wanted = {digest for digest in digests if digest is not None}
    if not wanted:
        return {}
    return {row.digest: row for row in session.scalars(select(table).where(col(table.digest).in_(wanted)))}


def _load_edges(session: Session, run_ids: Sequence[str]) -> dict[tuple[str, str], list[Edge]]:
    """By run and direction."""
    query = (
        select(RunArtifactRow, ArtifactRow)
        .join(ArtifactRow, col(ArtifactRow.id) == col(RunArtifactRow.artifact_id))
        .where(col(RunArtifactRow.run_id).in_(run_ids))
        .order_by(col(RunArtifactRow.role), col(RunArtifactRow.artifact_id))
    )
    edges: defaultdict[tuple[str, str], list[Edge]] = defaultdict(list)
    for edge, artifact in session.execute(query):
        edges[edge.run_id, edge.direction].append(Edge(role=edge.role, artifact=to_artifact(artifact)))
    return edges


def _load_readings(session: Session, run_ids: Sequence[str]) -> dict[str, list[Reading]]:
    """By run."""
    query = select(ReadingRow).where(col(ReadingRow.run_id).in_(run_ids)).order_by(col(ReadingRow.id))
    readings: defaultdict[str, list[Reading]] = defaultdict(list)
    for row in session.scalars(query):
        readings[row.run_id].append(to_reading(row))
    return readings


def _load_metrics(session: Session, run_ids: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """By run, subject and name."""
    columns = (col(MetricRow.run_id), col(MetricRow.name), col(MetricRow.value), col(MetricRow.subject_id))
    query = select(*columns).where(col(MetricRow.run_id).in_(run_ids))
    metrics: defaultdict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    # Ordered here: MariaDB would read all metrics in the order of their names for the sake of a few.
    for run_id, name, value, subject_id in sorted(session.execute(query), key=lambda row: str(row[1])):
        metrics[run_id].setdefault(subject_id, {})[name] = cast(float, value)  # NULL has become NaN
    return metrics
