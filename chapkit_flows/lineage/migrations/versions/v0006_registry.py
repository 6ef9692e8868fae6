"""The registry: model versions, and the history of the aliases that point to them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from chapkit_flows.lineage.migrations.changes import create_index, create_table, drop_table

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
ID = sa.String(26)
NAME = sa.String(255)
WORD = sa.String(64)
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    create_table(
        "lineage_model_version",
        sa.Column("id", ID, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("artifact_id", ID, nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("registered_by", NAME, nullable=False),
        sa.Column("registered_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_model_version"),
        sa.UniqueConstraint("artifact_id", name="uq_lineage_model_version_artifact_id"),
        sa.ForeignKeyConstraint(["artifact_id"], ["lineage_artifact.id"], name="fk_lineage_model_version_artifact_id"),
        **OPTIONS,
    )
    create_index("ix_lineage_model_version_model_number", "lineage_model_version", ("model", "number"), unique=True)
    create_index("ix_lineage_model_version_model_id", "lineage_model_version", ("model", "id"))
    create_table(
        "lineage_assignment",
        sa.Column("id", ID, nullable=False),
        sa.Column("model", NAME, nullable=False),
        sa.Column("alias", WORD, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("action", WORD, nullable=False),
        sa.Column("number", sa.Integer()),
        sa.Column("previous", sa.Integer()),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("evidence", sa.JSON()),
        sa.Column("moment", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_assignment"),
        **OPTIONS,
    )
    columns = ("model", "alias", "sequence")
    create_index("ix_lineage_assignment_model_alias_sequence", "lineage_assignment", columns, unique=True)


def downgrade() -> None:
    drop_table("lineage_assignment")
    drop_table("lineage_model_version")
