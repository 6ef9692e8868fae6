"""Tags and notes with their history, and indexes for search by time, status and metric."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from chapkit_flows.lineage.migrations.changes import create_index, create_table, drop_index, drop_table

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
ID = sa.String(26)
NAME = sa.String(255)
WORD = sa.String(64)
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
MOMENT = sa.DateTime(timezone=True).with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")

INDEXES = (
    ("lineage_run", ("started_at", "id")),
    ("lineage_run", ("finished_at", "id")),
    ("lineage_artifact", ("created_at", "id")),
    ("lineage_artifact", ("status", "id")),
    ("lineage_artifact", ("level", "id")),
    ("lineage_metric", ("name", "value", "run_id", "subject_id")),
)
OLD_INDEX = ("lineage_metric", ("name", "value", "run_id"))


def upgrade() -> None:
    create_annotations()
    create_tags()
    for table, columns in INDEXES:
        create_index(name_of(table, columns), table, columns)
    drop_index(name_of(*OLD_INDEX), OLD_INDEX[0])


def create_annotations() -> None:
    create_table(
        "lineage_annotation",
        sa.Column("id", ID, nullable=False),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("action", WORD, nullable=False),
        sa.Column("key", WORD),
        sa.Column("text", TEXT),
        sa.Column("author", NAME, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_annotation"),
        **OPTIONS,
    )
    columns = ("subject_id", "created_at", "id")
    create_index(name_of("lineage_annotation", columns), "lineage_annotation", columns)


def create_tags() -> None:
    create_table(
        "lineage_tag",
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("key", WORD, nullable=False),
        sa.Column("value", NAME, nullable=False),
        sa.Column("subject_type", WORD, nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "key", name="pk_lineage_tag"),
        **OPTIONS,
    )
    columns = ("subject_type", "key", "value", "subject_id")
    create_index(name_of("lineage_tag", columns), "lineage_tag", columns)


def downgrade() -> None:
    create_index(name_of(*OLD_INDEX), *OLD_INDEX)
    for table, columns in INDEXES:
        drop_index(name_of(table, columns), table)
    drop_table("lineage_tag")
    drop_table("lineage_annotation")


def name_of(table: str, columns: tuple[str, ...]) -> str:
    return "_".join(("ix", table, *columns))
