"""Runs, artifacts, the edges between them, config and code versions, metrics."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from chapkit_flows.lineage.migrations.changes import create_index, create_table, drop_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
ID = sa.String(26)
DIGEST = sa.String(80)
NAME = sa.String(255)
WORD = sa.String(64)
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    create_versions()
    create_runs()
    create_artifacts()
    create_edges()
    create_metrics()


def create_versions() -> None:
    create_table(
        "lineage_config_version",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("block_type", NAME, nullable=False),
        sa.Column("name", NAME),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_lineage_config_version"),
        **OPTIONS,
    )
    create_table(
        "lineage_code_version",
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("git_commit", WORD),
        sa.Column("dirty", sa.Boolean(), nullable=False),
        sa.Column("patch_digest", DIGEST),
        sa.Column("source_digest", DIGEST),
        sa.Column("python", WORD, nullable=False),
        sa.Column("packages", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_lineage_code_version"),
        **OPTIONS,
    )


def create_runs() -> None:
    create_table(
        "lineage_run",
        sa.Column("id", ID, nullable=False),
        sa.Column("flow", WORD, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("entrypoint", TEXT),
        sa.Column("flow_run_id", sa.String(36)),
        sa.Column("flow_run_name", TEXT),
        sa.Column("status", WORD, nullable=False),
        sa.Column("error", TEXT),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("config_name", NAME),
        sa.Column("config_digest", DIGEST),
        sa.Column("code_digest", DIGEST),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_run"),
        sa.UniqueConstraint("flow_run_id", name="uq_lineage_run_flow_run_id"),
        sa.ForeignKeyConstraint(
            ["config_digest"], ["lineage_config_version.digest"], name="fk_lineage_run_config_digest"
        ),
        sa.ForeignKeyConstraint(["code_digest"], ["lineage_code_version.digest"], name="fk_lineage_run_code_digest"),
        **OPTIONS,
    )
    create_index("ix_lineage_run_flow_id", "lineage_run", ["flow", "id"])
    create_index("ix_lineage_run_model_id", "lineage_run", ["model", "id"])
    create_index("ix_lineage_run_status_id", "lineage_run", ["status", "id"])
    create_index("ix_lineage_run_config_digest", "lineage_run", ["config_digest"])
    create_index("ix_lineage_run_code_digest", "lineage_run", ["code_digest"])


def create_artifacts() -> None:
    create_table(
        "lineage_artifact",
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("level", sa.Integer()),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(160), nullable=False),
        sa.Column("codec", WORD, nullable=False),
        sa.Column("status", WORD, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("ingest_key", NAME),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_artifact"),
        sa.UniqueConstraint("ingest_key", name="uq_lineage_artifact_ingest_key"),
        **OPTIONS,
    )
    create_index("ix_lineage_artifact_kind_id", "lineage_artifact", ["kind", "id"])
    create_index("ix_lineage_artifact_digest_id", "lineage_artifact", ["digest", "id"])


def create_edges() -> None:
    create_table(
        "lineage_run_artifact",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("direction", WORD, nullable=False),
        sa.Column("artifact_id", ID, nullable=False),
        sa.Column("role", WORD, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "direction", "artifact_id", "role", name="pk_lineage_run_artifact"),
        sa.ForeignKeyConstraint(["run_id"], ["lineage_run.id"], name="fk_lineage_run_artifact_run_id"),
        sa.ForeignKeyConstraint(["artifact_id"], ["lineage_artifact.id"], name="fk_lineage_run_artifact_artifact_id"),
        sa.CheckConstraint("direction IN ('input', 'output')", name=op.f("ck_lineage_run_artifact_direction")),
        **OPTIONS,
    )
    create_index(
        "ix_lineage_run_artifact_artifact_id_direction_run_id_role",
        "lineage_run_artifact",
        ["artifact_id", "direction", "run_id", "role"],
    )


def create_metrics() -> None:
    create_table(
        "lineage_metric",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("value", sa.Double()),
        sa.PrimaryKeyConstraint("run_id", "subject_id", "name", name="pk_lineage_metric"),
        sa.ForeignKeyConstraint(["run_id"], ["lineage_run.id"], name="fk_lineage_metric_run_id"),
        **OPTIONS,
    )
    create_index("ix_lineage_metric_name_value_run_id", "lineage_metric", ["name", "value", "run_id"])


def downgrade() -> None:
    for table in ("metric", "run_artifact", "artifact", "run", "code_version", "config_version"):
        drop_table(f"lineage_{table}")
