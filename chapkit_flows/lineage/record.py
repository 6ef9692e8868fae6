"""Write facts: a run starts, a run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, or_, select
from sqlalchemy.orm import Session
from sqlmodel import col

from chapkit_flows.errors import LineageError, RunNotFound
from chapkit_flows.lineage.configs import Keep, add_entry, record_version
from chapkit_flows.lineage.deletions import close_deletions
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import ConfigEntry, Edge, NewEntry, Outcome, Reading, RunFact
from chapkit_flows.lineage.rows import Direction, from_artifact, from_reading, from_run, load_runs, to_new_run
from chapkit_flows.lineage.tables import (
    ArtifactRow,
    CodeVersionRow,
    MetricRow,
    ReadingRow,
    RunArtifactRow,
    RunRow,
)
from chapkit_flows.refs import ArtifactRef, CodeVersion, ConfigRef, RunRef, now


def start(database: Database, run: RunRef) -> RunFact:
    """Record that a run has begun, as `begin` does, before its config is known."""
    return begin(database, run)[0]


def begin(
    database: Database,
    run: RunRef,
    config: ConfigRef | None = None,
    *,
    author: str = "",
    keep: Keep | None = None,
) -> tuple[RunFact, ConfigEntry | None]:
    """Record that a run has begun.

    A flow run that was seen before (a retry, a rescheduled run) keeps its run and its id: if that is
    completed it is returned as it is, for its results to be used again, else it is running again.

    Args:
        database: To write.
        run: It.
        config: The saved config that it was started with, as it is saved now; None for one that is not saved, or
            that was changed for this run.
        author: Who runs it.
        keep: As in `record_config`.

    Returns:
        The run; and, if the saved config has changed since it was last recorded, the new entry of its history.

    Raises:
        LineageError: The id belongs to another flow run; or as `Database.write` raises it.
    """

    def work(session: Session) -> tuple[RunFact, ConfigEntry | None]:
        row = _find_started(session, run)
        if row is not None and row.flow_run_id != run.flow_run_id:
            raise LineageError(
                f"The run {run.id} is recorded already, as the flow run {row.flow_run_id}. Give the new one another id."
            )
        if row is not None and row.status == "completed":
            return load_runs(session, [row])[0], None
        new = NewEntry(origin="run", author=author, created_at=run.started_at)
        entry = _use_saved(session, config, new, keep)
        if row is None:
            row = from_run(run, config)
            session.add(row)
            session.flush()
            session.refresh(row)  # as every later reader sees it
            return to_new_run(row, config), entry
        row.status, row.error, row.finished_at = "running", None, None
        if config is not None:
            row.config_digest, row.config_name = config.digest, config.name
            session.flush()
        return load_runs(session, [row])[0], entry

    return database.transact(work)


def _use_saved(session: Session, config: ConfigRef | None, new: NewEntry, keep: Keep | None) -> ConfigEntry | None:
    if config is None:
        return None
    entry, is_new = add_entry(session, config, new, keep)
    return entry if is_new else None


def finish(
    database: Database,
    run_id: str,
    outcome: Outcome,
    *,
    keep: Callable[[RunFact], None] | None = None,
    only_running: bool = False,
) -> RunFact:
    """Record in one transaction how a run ended and everything it read and wrote.

    A dataset is recorded once, however many runs read it; and the same output of the same run once,
    however often the flow is retried. So the artifacts in the returned fact may have other ids than
    those in `outcome`: go on with the returned ones. A completed run stays as it is.

    Args:
        database: To write.
        run_id: Of a run that has begun.
        outcome: How it ended.
        keep: Called with what is returned before it counts, while no other process can finish the run: what it writes
            beside the objects is what the database says. If it fails nothing is recorded.
        only_running: Leave a run alone that has ended already, however it did.

    Raises:
        RunNotFound: The run was never started.
        LineageError: An artifact's id belongs to other bytes; or as `Database.write` raises it.
    """

    def work(session: Session) -> RunFact:
        # Two processes may believe that they execute the same flow run: one waits here for the other.
        row = session.get(RunRow, run_id, with_for_update=True)
        if row is None:
            raise RunNotFound(f"No run has the id {run_id}. List them with: chapkit-flows runs list")
        if row.status == "running" or (row.status != "completed" and not only_running):
            _record_outcome(session, row, outcome)
            session.flush()
            session.refresh(row)  # as every later reader sees it
        fact = load_runs(session, [row])[0]
        if keep is not None:
            keep(fact)
        return fact

    return database.transact(work)


def restore_runs(database: Database, runs: Sequence[RunFact]) -> int:
    """Record finished runs as they were recorded before, in one transaction; those that are there stay as they are.

    Args:
        database: To write.
        runs: In the order in which they finished, for config versions to get back the name they were first used by.

    Returns:
        How many were not there.

    Raises:
        LineageError: As `Database.write` raises it.
    """

    def work(session: Session) -> int:
        ids = [run.id for run in runs]
        known = set(session.scalars(select(col(RunRow.id)).where(col(RunRow.id).in_(ids))))
        missing = [run for run in runs if run.id not in known]
        for run in missing:
            row = from_run(run)
            session.add(row)
            session.flush()
            _record_outcome(session, row, _outcome_of(run))
        return len(missing)

    return database.transact(work)


def _outcome_of(run: RunFact) -> Outcome:
    return Outcome(
        status=run.status,
        error=run.error,
        finished_at=run.finished_at or run.started_at,
        inputs=run.inputs,
        outputs=run.outputs,
        readings=run.readings,
        config=run.config,
        code=run.code,
        metrics=run.metrics,
        artifact_metrics=run.artifact_metrics,
    )


def _find_started(session: Session, run: RunRef) -> RunRow | None:
    same = [col(RunRow.id) == run.id]
    if run.flow_run_id is not None:
        same.append(col(RunRow.flow_run_id) == run.flow_run_id)
    return session.scalars(select(RunRow).where(or_(*same)).with_for_update()).first()


def _record_outcome(session: Session, row: RunRow, outcome: Outcome) -> None:
    """What an earlier attempt knew and this one did not reach (config, code, inputs) is kept."""
    moment = outcome.finished_at or now()
    row.status, row.error, row.finished_at = outcome.status, outcome.error, moment
    if outcome.config is not None:
        if outcome.config.digest != row.config_digest:  # else it is there since the run began
            record_version(session, outcome.config, first_used=row.started_at)
        row.config_digest, row.config_name = outcome.config.digest, outcome.config.name
    if outcome.code is not None:
        _record_code(session, outcome.code)
        row.code_digest = outcome.code.digest
    ids = _record_edges(session, row.id, outcome)
    _record_readings(session, row.id, outcome.readings, ids)
    _take_out_of_trash(session, row.id, outcome, moment)
    _record_metrics(session, row.id, outcome)


def _record_code(session: Session, code: CodeVersion) -> None:
    known = select(col(CodeVersionRow.digest)).where(col(CodeVersionRow.digest) == code.digest)
    if session.scalar(known) is None:
        values = {
            "digest": code.digest,
            "git_commit": code.git_commit,
            "dirty": code.dirty,
            "patch_digest": code.patch_digest,
            "source_digest": code.source_digest,
            "python": code.python,
            "packages": dict(code.packages),
        }
        session.execute(insert(CodeVersionRow), [values])


def _record_edges(session: Session, run_id: str, outcome: Outcome) -> dict[str, str]:
    """Return the recorded ids of the artifacts by the given ones."""
    recorded = _load_recorded_edges(session, run_id)
    inputs, outputs = outcome.inputs, _without_repeated(outcome.outputs, recorded)
    ids = _record_artifacts(session, [edge.artifact for edge in (*inputs, *outputs)])
    wanted = _edge_keys("input", inputs, ids) + _edge_keys("output", outputs, ids)
    known = {(direction, artifact.id, role) for direction, role, artifact in recorded}
    rows = [
        {"run_id": run_id, "direction": direction, "artifact_id": artifact_id, "role": role}
        for direction, artifact_id, role in dict.fromkeys(wanted)
        if (direction, artifact_id, role) not in known
    ]
    if rows:
        session.execute(insert(RunArtifactRow), rows)
    return ids


def _record_readings(
    session: Session, run_id: str, readings: Sequence[Reading], artifact_ids: Mapping[str, str]
) -> None:
    """Insert those that are not recorded yet, each with the recorded id of its dataset."""
    if not readings:
        return
    of_run = select(col(ReadingRow.id)).where(col(ReadingRow.run_id) == run_id)
    known = set(session.scalars(of_run))
    rows = [
        from_reading(replace(one, run_id=run_id, artifact_id=artifact_ids.get(one.artifact_id, one.artifact_id)))
        for one in readings
        if one.id not in known
    ]
    if rows:
        session.execute(insert(ReadingRow), rows)


def _take_out_of_trash(session: Session, run_id: str, outcome: Outcome, moment: datetime) -> None:
    """Data that somebody deleted and that a run has read again, from where it came, is wanted again."""
    if outcome.status == "completed" and outcome.inputs:
        read = (col(RunArtifactRow.run_id) == run_id, col(RunArtifactRow.direction) == "input")
        inputs = session.scalars(select(col(RunArtifactRow.artifact_id)).where(*read)).all()
        close_deletions(session, inputs, actor=f"run {run_id}", moment=moment)


def _load_recorded_edges(session: Session, run_id: str) -> list[tuple[str, str, ArtifactRow]]:
    """Direction, role and artifact of what an earlier attempt has recorded."""
    query = (
        select(col(RunArtifactRow.direction), col(RunArtifactRow.role), ArtifactRow)
        .join(ArtifactRow, col(ArtifactRow.id) == col(RunArtifactRow.artifact_id))
        .where(col(RunArtifactRow.run_id) == run_id)
    )
    return [(direction, role, artifact) for direction, role, artifact in session.execute(query)]


def _without_repeated(outputs: Sequence[Edge], recorded: Iterable[tuple[str, str, ArtifactRow]]) -> tuple[Edge, ...]:
    """The outputs whose bytes an earlier attempt of the run has not recorded in the same role."""
    known = {_content(role, artifact) for direction, role, artifact in recorded if direction == "output"}
    return tuple(edge for edge in outputs if _content(edge.role, edge.artifact) not in known)


def _content(role: str, artifact: ArtifactRef | ArtifactRow) -> tuple[str, ...]:
    return (role, artifact.kind, artifact.digest, artifact.media_type, artifact.codec, artifact.status)


def _edge_keys(direction: Direction, edges: Iterable[Edge], ids: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [(direction, ids[edge.artifact.id], edge.role) for edge in edges]


def _record_artifacts(session: Session, artifacts: Iterable[ArtifactRef]) -> dict[str, str]:
    """Insert the artifacts that are not recorded yet; return the recorded id by the given one."""
    # In one order everywhere: of two writers of the same datasets one then waits for the other.
    in_order = sorted(artifacts, key=lambda artifact: artifact.digest)
    rows = {artifact.id: from_artifact(artifact) for artifact in in_order}
    digests, datasets = _find_recorded(session, rows)
    ids: dict[str, str] = {}
    missing: list[dict[str, Any]] = []
    for given, row in rows.items():
        key = row["ingest_key"]
        recorded = ids[given] = given if key is None else datasets.setdefault(key, given)
        if recorded not in digests:
            digests[recorded] = row["digest"]
            missing.append(row)
        elif digests[recorded] != row["digest"]:
            raise LineageError(
                f"The artifact {recorded} is recorded with the digest {digests[recorded]}, not with "
                f"{row['digest']}. Artifacts never change: give the new one an id of its own."
            )
    if missing:
        session.execute(insert(ArtifactRow), missing)
    return ids


def _find_recorded(session: Session, rows: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Of the recorded artifacts among these: the digest by id, and the id by ingest key."""
    if not rows:
        return {}, {}
    keys = [row["ingest_key"] for row in rows.values() if row["ingest_key"] is not None]
    columns = (col(ArtifactRow.id), col(ArtifactRow.digest), col(ArtifactRow.ingest_key))
    same = or_(col(ArtifactRow.id).in_(list(rows)), col(ArtifactRow.ingest_key).in_(keys))
    found = session.execute(select(*columns).where(same)).all()
    datasets = {key: artifact_id for artifact_id, _, key in found if key is not None}
    return {artifact_id: digest for artifact_id, digest, _ in found}, datasets


def _record_metrics(session: Session, run_id: str, outcome: Outcome) -> None:
    """Replace those of an earlier attempt."""
    of_run = col(MetricRow.run_id) == run_id
    session.execute(delete(MetricRow).where(of_run).execution_options(synchronize_session=False))
    rows = [
        {"run_id": run_id, "subject_id": subject_id, "name": name, "value": value}
        for subject_id, metrics in {run_id: outcome.metrics, **outcome.artifact_metrics}.items()
        for name, value in metrics.items()
    ]
    if rows:
        session.execute(insert(MetricRow), rows)
