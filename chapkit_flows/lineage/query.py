"""Read facts. Lists are newest first, in pages: pass the id of the last one as `before` for the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, func, or_, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import ArtifactNotFound, ConfigNotFound, RunNotFound
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.rows import load_runs, make_ingest_key, to_artifact, to_config
from chapkit_flows.lineage.tables import (
    ArtifactRow,
    CodeVersionRow,
    ConfigVersionRow,
    DeletionRow,
    MetricRow,
    RunArtifactRow,
    RunRow,
)
from chapkit_flows.refs import ArtifactRef, CodeVersion, ConfigRef, Kind, RunStatus, check_id

STANDING = "standing"
"""The role in which a scoring keeps how the versions of its model stand, and the key in the artifact's metadata."""


def get_run(database: Database, run_id: str) -> RunFact:
    """The run with that id, or the one of the Prefect flow run with that id.

    Raises:
        RunNotFound: There is none.
    """
    text = run_id.strip()[:37]  # longer than any id
    query = select(RunRow).where(or_(col(RunRow.id) == text.upper()[:26], col(RunRow.flow_run_id) == text.lower()[:36]))
    with database.read() as session:
        row = session.scalars(query).first()
        if row is None or text.lower() not in (row.id.lower(), row.flow_run_id):
            raise RunNotFound(f"No run has the id {run_id!r}. List them with: chapkit-flows runs list")
        return load_runs(session, [row])[0]


def list_runs(
    database: Database,
    *,
    flow: str | None = None,
    model: str | None = None,
    status: RunStatus | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[RunFact]:
    """Runs, newest first.

    Args:
        database: To read.
        flow: Only runs of this flow.
        model: Only runs of this model.
        status: Only runs in this status.
        limit: Length of a page.
        before: The id of the last run on the page before.

    Raises:
        InvalidId: `before` is not an id.
    """
    query = select(RunRow)
    for column, value in ((RunRow.flow, flow), (RunRow.model, model), (RunRow.status, status)):
        if value is not None:
            query = query.where(col(column) == value)
    query = page(query, col(RunRow.id), limit, before)
    with database.read() as session:
        return load_runs(session, session.scalars(query).all())


def get_artifact(database: Database, artifact_id: str) -> ArtifactRef:
    """The artifact with that id.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: There is none.
    """
    wanted = check_id(artifact_id)
    with database.read() as session:
        return to_artifact(_get_artifact(session, wanted))


def list_artifacts(
    database: Database,
    *,
    kind: Kind | None = None,
    model: str | None = None,
    digest: str | None = None,
    limit: int = 50,
    before: str | None = None,
) -> list[ArtifactRef]:
    """Artifacts, newest first, without those in the trash.

    Args:
        database: To read.
        kind: Only artifacts of this kind.
        model: Only what runs of this model read or wrote.
        digest: Only artifacts with these bytes, those in the trash too.
        limit: Length of a page.
        before: The id of the last artifact on the page before.

    Raises:
        InvalidId: `before` is not an id.
    """
    query = select(ArtifactRow)
    for column, value in ((ArtifactRow.kind, kind), (ArtifactRow.digest, digest)):
        if value is not None:
            query = query.where(col(column) == value)
    if digest is None:
        query = query.where(is_kept())
    if model is not None:
        touched = (
            select(col(RunArtifactRow.run_id))
            .join(RunRow, col(RunRow.id) == col(RunArtifactRow.run_id))
            .where(col(RunArtifactRow.artifact_id) == col(ArtifactRow.id), col(RunRow.model) == model)
        )
        query = query.where(touched.exists())
    query = page(query, col(ArtifactRow.id), limit, before)
    with database.read() as session:
        return [to_artifact(row) for row in session.scalars(query)]


def scan_artifacts(database: Database, *, after: str = "", page: int = 1000) -> Iterator[ArtifactRef]:
    """All artifacts, oldest first, in pages: none is held open between them.

    Args:
        database: To read.
        after: The id of the last artifact seen before.
        page: Rows to read at once.
    """
    while True:
        query = select(ArtifactRow).where(col(ArtifactRow.id) > after).order_by(col(ArtifactRow.id)).limit(page)
        with database.read() as session:
            found = [to_artifact(row) for row in session.scalars(query)]
        yield from found
        if len(found) < page:
            return
        after = found[-1].id


def oldest_running(database: Database, *, since: datetime) -> datetime | None:
    """When the oldest run began that is recorded as running and started after a moment; None if there is none."""
    query = select(col(RunRow.started_at)).where(col(RunRow.status) == "running", col(RunRow.started_at) > since)
    with database.read() as session:
        return session.scalar(query.order_by(col(RunRow.started_at)).limit(1))


def running_before(database: Database, moment: datetime, model: str | None = None) -> list[RunFact]:
    """The runs that started before a moment and are recorded as running, oldest first.

    Args:
        database: To read.
        moment: The latest start.
        model: Only runs of this model.
    """
    query = select(RunRow).where(col(RunRow.status) == "running", col(RunRow.started_at) < moment)
    if model is not None:
        query = query.where(col(RunRow.model) == model)
    with database.read() as session:
        rows = session.scalars(query.order_by(col(RunRow.id))).all()
        return load_runs(session, rows) if rows else []


def find_dataset(database: Database, digest: str, media_type: str) -> ArtifactRef | None:
    """The dataset with these bytes, if a run has recorded it."""
    query = select(ArtifactRow).where(col(ArtifactRow.ingest_key) == make_ingest_key(digest, media_type))
    with database.read() as session:
        row = session.scalars(query).first()
        return None if row is None else to_artifact(row)


def producer(database: Database, artifact_id: str) -> RunFact | None:
    """The run that made an artifact; None for a dataset that came from outside.

    Raises:
        InvalidId: It is not an id.
        ArtifactNotFound: There is none.
    """
    with database.read() as session:
        query = _runs_at(session, artifact_id, "output").order_by(col(RunRow.id)).limit(1)
        runs = load_runs(session, session.scalars(query).all())
        return runs[0] if runs else None


def consumers(database: Database, artifact_id: str, *, limit: int = 50, before: str | None = None) -> list[RunFact]:
    """The runs that read an artifact, newest first.

    Raises:
        InvalidId: `artifact_id` or `before` is not an id.
        ArtifactNotFound: There is none.
    """
    with database.read() as session:
        # The page is cut among the ids in the index, before any run is looked up: thousands may have read one dataset.
        run_id = col(RunArtifactRow.run_id)
        first = page(_runs_of(session, artifact_id, "input").distinct(), run_id, limit, before).subquery()
        query = select(RunRow).join(first, col(RunRow.id) == first.c.run_id).order_by(col(RunRow.id).desc())
        return load_runs(session, session.scalars(query).all())


def latest_training(
    database: Database, model: str, *, config_name: str | None = None, config_digest: str | None = None
) -> RunFact | None:
    """The newest completed run that trained a model which is not in the trash; None if there is none.

    A training that failed is passed over: the one before it stays in use.

    Args:
        database: To read.
        model: That was trained.
        config_name: Only trainings with the saved config of this name.
        config_digest: Only trainings with this config version.
    """
    made = (
        select(col(RunArtifactRow.run_id))
        .join(ArtifactRow, col(ArtifactRow.id) == col(RunArtifactRow.artifact_id))
        .where(
            col(RunArtifactRow.run_id) == col(RunRow.id),
            col(RunArtifactRow.direction) == "output",
            col(RunArtifactRow.role) == "model",
            col(ArtifactRow.status) == "ok",
            is_kept(),
        )
    )
    # Not by the index on the status: nearly all runs are completed, of one model there are few.
    completed = func.coalesce(col(RunRow.status), "") == "completed"
    query = select(RunRow).where(col(RunRow.model) == model, completed, made.exists())
    if config_name is not None:
        query = query.where(col(RunRow.config_name) == config_name)
    if config_digest is not None:
        # Not by the index on the digest: the runs are to come in the order of the index on the model.
        query = query.where(func.coalesce(col(RunRow.config_digest), "") == config_digest)
    with database.read() as session:
        runs = load_runs(session, session.scalars(query.order_by(col(RunRow.id).desc()).limit(1)).all())
        return runs[0] if runs else None


def last_metric(database: Database, model: str, name: str) -> float | None:
    """What the newest completed run of a model that measured something under a name measured; None if none did."""
    query = (
        select(col(MetricRow.value))
        .join(RunRow, col(RunRow.id) == col(MetricRow.run_id))
        .where(
            col(RunRow.model) == model,
            # Not by the index on the status: nearly all runs are completed, of one model there are few.
            func.coalesce(col(RunRow.status), "") == "completed",
            col(MetricRow.subject_id) == col(RunRow.id),
            col(MetricRow.name) == name,
        )
        .order_by(col(RunRow.id).desc())
        .limit(1)
    )
    with database.read() as session:
        value: float | None = session.scalar(query)
    return value


def latest_backtest(
    database: Database, model: str, config_digest: str, code: CodeVersion, *, like: RunFact | None = None
) -> RunFact | None:
    """The newest completed run that scored forecasts of a config version made with some code; None if there is none.

    Installed packages are not compared: they differ from machine to machine.

    Args:
        database: To read.
        model: Of which forecasts were scored.
        config_digest: Of the config version.
        code: With which they were made.
        like: Only a run whose forecasts knew as much as those of this one.
    """
    scored = select(col(RunArtifactRow.run_id)).where(
        col(RunArtifactRow.run_id) == col(RunRow.id),
        col(RunArtifactRow.direction) == "output",
        col(RunArtifactRow.role) == "scores",
    )
    source = [
        column == value if value is not None else column.is_(None)
        for column, value in (
            (col(CodeVersionRow.git_commit), code.git_commit),
            (col(CodeVersionRow.patch_digest), code.patch_digest),
            (col(CodeVersionRow.source_digest), code.source_digest),
        )
    ]
    query = (
        select(RunRow)
        .join(CodeVersionRow, col(CodeVersionRow.digest) == col(RunRow.code_digest))
        .where(
            col(RunRow.config_digest) == config_digest,
            col(RunRow.model) == model,
            col(RunRow.flow).in_(("backtest", "retrain")),
            col(RunRow.status) == "completed",
            scored.exists(),
            *source,
        )
    )
    newest = query.order_by(col(RunRow.id).desc())
    with database.read() as session:
        if like is None:
            found = session.scalars(newest.limit(1)).first()
        else:
            wanted = what_is_known(like.parameters)
            found = next((row for row in session.scalars(newest) if what_is_known(row.parameters) == wanted), None)
        return None if found is None else load_runs(session, [found])[0]


def what_is_known(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the forecasts of a backtest, or of a retraining with a gate, knew of the weather ahead and of revisions.

    Args:
        parameters: That the run was started with.
    """
    plan = (parameters.get("gate") or {}).get("plan") or parameters
    return {"covariates": plan.get("covariates"), "vintages": parameters.get("vintages")}


def latest_standing(database: Database, model: str) -> dict[str, Any] | None:
    """How the versions of a model stood when predictions were last scored; None if no scoring has said so."""
    query = (
        select(ArtifactRow)
        .join(RunArtifactRow, col(RunArtifactRow.artifact_id) == col(ArtifactRow.id))
        .join(RunRow, col(RunRow.id) == col(RunArtifactRow.run_id))
        .where(
            col(RunRow.model) == model,
            # By the index on the model: its runs are few.
            func.coalesce(col(RunRow.flow), "") == "score",
            func.coalesce(col(RunRow.status), "") == "completed",
            col(RunArtifactRow.direction) == "output",
            col(RunArtifactRow.role) == STANDING,
            is_kept(),
        )
        .order_by(col(RunRow.id).desc())
        .limit(1)
    )
    with database.read() as session:
        row = session.scalars(query).first()
        return None if row is None else dict(to_artifact(row).metadata[STANDING])


def get_config(database: Database, digest: str) -> ConfigRef:
    """The config version with that digest, under the name it was first used by.

    Raises:
        ConfigNotFound: No run has used it.
    """
    query = select(ConfigVersionRow).where(col(ConfigVersionRow.digest) == digest)
    with database.read() as session:
        row = session.scalars(query).first()
        if row is None:
            raise ConfigNotFound(f"No run has used a config version with the digest {digest!r}.")
        return to_config(row, row.name)


def _get_artifact(session: Session, artifact_id: str) -> ArtifactRow:
    row = session.get(ArtifactRow, artifact_id)
    if row is None:
        raise ArtifactNotFound(f"No artifact has the id {artifact_id}. List them with: chapkit-flows artifacts list")
    return row


def _runs_at(session: Session, artifact_id: str, direction: str) -> Select[tuple[RunRow]]:
    """The runs on one side of an artifact that exists."""
    return select(RunRow).where(col(RunRow.id).in_(_runs_of(session, artifact_id, direction)))


def _runs_of(session: Session, artifact_id: str, direction: str) -> Select[tuple[str]]:
    """Their ids, one for each role."""
    artifact = _get_artifact(session, check_id(artifact_id))
    return select(col(RunArtifactRow.run_id)).where(
        col(RunArtifactRow.artifact_id) == artifact.id, col(RunArtifactRow.direction) == direction
    )


def is_kept() -> ColumnElement[bool]:
    """Whether an artifact is not in the trash."""
    deleted = (col(DeletionRow.artifact_id) == col(ArtifactRow.id), col(DeletionRow.restored_at).is_(None))
    return ~select(DeletionRow).where(*deleted).exists()


def page(query: Select[Any], id_column: SQLColumnExpression[Any], limit: int, before: str | None) -> Select[Any]:
    """The part of a query that is one page, newest first.

    Raises:
        InvalidId: `before` is not an id.
    """
    if before is not None:
        query = query.where(id_column < check_id(before))
    return query.order_by(id_column.desc()).limit(limit)
