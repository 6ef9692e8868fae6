"""Artifacts in the trash."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from chapkit_flows.lineage.migrations.changes import create_index, create_table, drop_table

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
ID = sa.String(26)
NAME = sa.String(255)
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    create_table(
        "lineage_deletion",
        sa.Column("id", ID, nullable=False),
        sa.Column("artifact_id", ID, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=False),
        sa.Column("restored_at", MOMENT),
        sa.Column("restored_by", NAME),
        sa.Column("swept_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_deletion"),
        sa.ForeignKeyConstraint(["artifact_id"], ["lineage_artifact.id"], name="fk_lineage_deletion_artifact_id"),
        **OPTIONS,
    )
    create_index("ix_lineage_deletion_artifact_id_id", "lineage_deletion", ["artifact_id", "id"])


def downgrade() -> None:
    drop_table("lineage_deletion")
