"""The tables. Rows stay in this room; `refs` and `facts` hold the values that leave it.

Names start with `lineage_`: a cluster may give Prefect, which has tables called `artifact` and
`alembic_version`, the same database.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from chapkit_flows.lineage.columns import Label, LongText, Number, UtcDateTime

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
# MySQL's default collation calls "CRPS" and "crps" the same key.
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

ID = Label(26)
DIGEST = Label(80)
NAME = Label(255)
WORD = Label(64)
JSON_OBJECT = JSON(none_as_null=True)


class Table(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Base of the tables, with metadata of its own: users may define SQLModel tables too."""


class ConfigVersionRow(Table, table=True):
    """Content of a config that a run used.

    Attributes:
        name: The block document it was first read from.
    """

    __tablename__ = "lineage_config_version"
    __table_args__ = OPTIONS

    digest: str = Field(primary_key=True, sa_type=DIGEST)
    block_type: str = Field(sa_type=NAME)
    name: str | None = Field(sa_type=NAME)
    content: dict[str, Any] = Field(sa_type=JSON_OBJECT)
    created_at: datetime = Field(sa_type=UtcDateTime)


class ConfigEntryRow(Table, table=True):
    """A step in the history of a named config. Rows are only ever added.

    Attributes:
        sequence: Counts the steps of the name.
        number: Of the version: that of the step before, if the content is the same.
        restored: The number of the older version that this one brought back.
    """

    __tablename__ = "lineage_config_entry"
    __table_args__ = (UniqueConstraint("block_type", "name", "sequence"), OPTIONS)

    id: str = Field(primary_key=True, sa_type=ID)
    block_type: str = Field(sa_type=NAME)
    name: str = Field(sa_type=NAME)
    sequence: int
    number: int
    digest: str = Field(foreign_key="lineage_config_version.digest", sa_type=DIGEST)
    origin: str = Field(sa_type=WORD)
    author: str = Field(sa_type=NAME)
    note: str | None = Field(default=None, sa_type=LongText)
    restored: int | None = None
    created_at: datetime = Field(sa_type=UtcDateTime)


class CodeVersionRow(Table, table=True):
    """Code and packages that a run used."""

    __tablename__ = "lineage_code_version"
    __table_args__ = OPTIONS

    digest: str = Field(primary_key=True, sa_type=DIGEST)
    git_commit: str | None = Field(sa_type=WORD)
    dirty: bool
    patch_digest: str | None = Field(sa_type=DIGEST)
    source_digest: str | None = Field(sa_type=DIGEST)
    python: str = Field(sa_type=WORD)
    packages: dict[str, str] = Field(sa_type=JSON_OBJECT)


class RunRow(Table, table=True):
    """One execution of a flow.

    Attributes:
        config_name: The block document its config was read from: two may have the same content.
    """

    __tablename__ = "lineage_run"
    __table_args__ = (
        # Each ends in the id, which keyset pages are ordered by.
        Index(None, "flow", "id"),
        Index(None, "model", "id"),
        Index(None, "status", "id"),
        Index(None, "started_at", "id"),
        Index(None, "finished_at", "id"),
        Index(None, "config_digest"),
        Index(None, "code_digest"),
        OPTIONS,
    )

    id: str = Field(primary_key=True, sa_type=ID)
    flow: str = Field(sa_type=WORD)
    model: str = Field(sa_type=NAME)
    entrypoint: str | None = Field(sa_type=LongText)
    flow_run_id: str | None = Field(sa_type=Label(36), unique=True)
    flow_run_name: str | None = Field(sa_type=LongText)
    status: str = Field(sa_type=WORD)
    error: str | None = Field(default=None, sa_type=LongText)
    started_at: datetime = Field(sa_type=UtcDateTime)
    finished_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    parameters: dict[str, Any] = Field(sa_type=JSON_OBJECT)
    config_name: str | None = Field(default=None, sa_type=NAME)
    config_digest: str | None = Field(default=None, foreign_key="lineage_config_version.digest", sa_type=DIGEST)
    code_digest: str | None = Field(default=None, foreign_key="lineage_code_version.digest", sa_type=DIGEST)


class ArtifactRow(Table, table=True):
    """An immutable thing that a run consumed or produced.

    Attributes:
        ingest_key: Digest and media type of a dataset, which is recorded once however often it is
            read; None for what runs produce.
        details: The `metadata` of the artifact; SQLModel keeps that name for itself.
    """

    __tablename__ = "lineage_artifact"
    __table_args__ = (
        Index(None, "kind", "id"),
        Index(None, "digest", "id"),
        Index(None, "status", "id"),
        Index(None, "level", "id"),
        Index(None, "created_at", "id"),
        OPTIONS,
    )

    id: str = Field(primary_key=True, sa_type=ID)
    kind: str = Field(sa_type=WORD)
    level: int | None
    digest: str = Field(sa_type=DIGEST)
    size: int = Field(sa_type=BigInteger)
    media_type: str = Field(sa_type=Label(160))
    codec: str = Field(sa_type=WORD)
    status: str = Field(sa_type=WORD)
    created_at: datetime = Field(sa_type=UtcDateTime)
    details: dict[str, Any] = Field(sa_column=Column("metadata", JSON_OBJECT, nullable=False))
    ingest_key: str | None = Field(sa_type=NAME, unique=True)


class RunArtifactRow(Table, table=True):
    """An edge of the graph: a run and what it read (`input`) or wrote (`output`), in which role."""

    __tablename__ = "lineage_run_artifact"
    __table_args__ = (
        CheckConstraint("direction IN ('input', 'output')", name="direction"),
        # From an artifact, without reading the rows; from a run the primary key serves.
        Index(None, "artifact_id", "direction", "run_id", "role"),
        OPTIONS,
    )

    run_id: str = Field(primary_key=True, foreign_key="lineage_run.id", sa_type=ID)
    direction: str = Field(primary_key=True, sa_type=WORD)
    artifact_id: str = Field(primary_key=True, foreign_key="lineage_artifact.id", sa_type=ID)
    role: str = Field(primary_key=True, sa_type=WORD)


class ReadingRow(Table, table=True):
    """That a run read a URI, and which dataset it brought.

    Attributes:
        uri_digest: What makes two URIs the same one; a digest, since no index holds a URI of any length.
        uri: For people, without secrets.
    """

    __tablename__ = "lineage_reading"
    __table_args__ = (
        Index(None, "uri_digest", "id"),
        Index(None, "artifact_id", "uri_digest", "id"),
        Index(None, "run_id"),
        OPTIONS,
    )

    id: str = Field(primary_key=True, sa_type=ID)
    uri_digest: str = Field(sa_type=DIGEST)
    uri: str = Field(sa_type=LongText)
    run_id: str = Field(foreign_key="lineage_run.id", sa_type=ID)
    role: str = Field(sa_type=WORD)
    artifact_id: str = Field(foreign_key="lineage_artifact.id", sa_type=ID)
    read_at: datetime = Field(sa_type=UtcDateTime)


class MetricRow(Table, table=True):
    """A number about a run or about one of its artifacts.

    Attributes:
        subject_id: The artifact that the number is about, else the run. Never null, so that it can be
            part of the key in every database.
    """

    __tablename__ = "lineage_metric"
    __table_args__ = (
        Index(None, "name", "value", "run_id", "subject_id"),  # from a value to its runs
        Index(None, "name", "run_id", "value", "subject_id"),  # from runs to their values, without reading the rows
        OPTIONS,
    )

    run_id: str = Field(primary_key=True, foreign_key="lineage_run.id", sa_type=ID)
    subject_id: str = Field(primary_key=True, sa_type=ID)
    name: str = Field(primary_key=True, sa_type=NAME)
    value: float | None = Field(sa_type=Number)


class DeletionRow(Table, table=True):
    """An artifact was put into the trash; the rows of its history stay.

    Attributes:
        restored_at: When it came back from the trash.
        swept_at: When its bytes were given up: from then on they may be gone.
    """

    __tablename__ = "lineage_deletion"
    __table_args__ = (Index(None, "artifact_id", "id"), OPTIONS)

    id: str = Field(primary_key=True, sa_type=ID)
    artifact_id: str = Field(foreign_key="lineage_artifact.id", sa_type=ID)
    actor: str = Field(sa_type=NAME)
    reason: str = Field(sa_type=LongText)
    deleted_at: datetime = Field(sa_type=UtcDateTime)
    restored_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    restored_by: str | None = Field(default=None, sa_type=NAME)
    swept_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class AnnotationRow(Table, table=True):
    """One thing that someone said of a run or an artifact after the fact. Rows are only ever added.

    Attributes:
        action: `set` or `remove` of a tag, or `note`.
        text: The value of a tag, or a note.
    """

    __tablename__ = "lineage_annotation"
    __table_args__ = (Index(None, "subject_id", "created_at", "id"), OPTIONS)

    id: str = Field(primary_key=True, sa_type=ID)
    subject_id: str = Field(sa_type=ID)
    action: str = Field(sa_type=WORD)
    key: str | None = Field(sa_type=WORD)
    text: str | None = Field(sa_type=LongText)
    author: str = Field(sa_type=NAME)
    created_at: datetime = Field(sa_type=UtcDateTime)


class TagRow(Table, table=True):
    """A tag that stands: what the annotations of its subject come to, kept for search.

    Attributes:
        subject_type: `run` or `artifact`, so that a search for runs passes over no artifacts.
    """

    __tablename__ = "lineage_tag"
    __table_args__ = (Index(None, "subject_type", "key", "value", "subject_id"), OPTIONS)

    subject_id: str = Field(primary_key=True, sa_type=ID)
    key: str = Field(primary_key=True, sa_type=WORD)
    value: str = Field(sa_type=NAME)
    subject_type: str = Field(sa_type=WORD)


class ModelVersionRow(Table, table=True):
    """A trained model under a number of its model. Rows are only ever added."""

    __tablename__ = "lineage_model_version"
    __table_args__ = (Index(None, "model", "number", unique=True), Index(None, "model", "id"), OPTIONS)

    id: str = Field(primary_key=True, sa_type=ID)
    model: str = Field(sa_type=NAME)
    number: int
    artifact_id: str = Field(foreign_key="lineage_artifact.id", sa_type=ID, unique=True)
    digest: str = Field(sa_type=DIGEST)
    note: str = Field(sa_type=LongText)
    registered_by: str = Field(sa_type=NAME)
    registered_at: datetime = Field(sa_type=UtcDateTime)


class AssignmentRow(Table, table=True):
    """A change of an alias: the last one by its sequence says where it points. Rows are only ever added.

    Attributes:
        number: Of the version that it points to from then on; None for nothing.
        previous: The number before.
        evidence: What the gate of a promotion saw.
    """

    __tablename__ = "lineage_assignment"
    # Two changes made at once against the same state have the same sequence number: one of them is refused.
    __table_args__ = (Index(None, "model", "alias", "sequence", unique=True), OPTIONS)

    id: str = Field(primary_key=True, sa_type=ID)
    model: str = Field(sa_type=NAME)
    alias: str = Field(sa_type=WORD)
    sequence: int
    action: str = Field(sa_type=WORD)
    number: int | None
    previous: int | None
    actor: str = Field(sa_type=NAME)
    reason: str = Field(sa_type=LongText)
    evidence: dict[str, Any] | None = Field(sa_type=JSON_OBJECT)
    moment: datetime = Field(sa_type=UtcDateTime)


class ExperimentRow(Table, table=True):
    """A named group of runs. Rows are only ever added.

    Attributes:
        models: The names of the models that its runs are of.
    """

    __tablename__ = "lineage_experiment"
    __table_args__ = (Index(None, "name", unique=True), OPTIONS)

    id: str = Field(primary_key=True, sa_type=ID)
    name: str = Field(sa_type=WORD)
    models: list[str] = Field(sa_type=JSON_OBJECT)
    description: str = Field(sa_type=LongText)
    author: str = Field(sa_type=NAME)
    created_at: datetime = Field(sa_type=UtcDateTime)


class TrialRow(Table, table=True):
    """That a run belongs to an experiment. Rows are only ever added.

    Attributes:
        number: Counts the runs of the experiment.
        identity: Digest of all that its result depends on: equal ones need not be done twice.
    """

    __tablename__ = "lineage_trial"
    __table_args__ = (Index(None, "experiment_id", "number", unique=True), Index(None, "run_id"), OPTIONS)

    id: str = Field(primary_key=True, sa_type=ID)
    experiment_id: str = Field(foreign_key="lineage_experiment.id", sa_type=ID)
    run_id: str = Field(foreign_key="lineage_run.id", sa_type=ID)
    number: int
    identity: str = Field(sa_type=DIGEST)
    added_at: datetime = Field(sa_type=UtcDateTime)
