"""Which URI brought which dataset, each time that a run read it."""

from __future__ import annotations

import sqlalchemy as sa

from chapkit_flows.lineage.migrations.changes import create_index, create_table, drop_table
from chapkit_flows.lineage.migrations.versions.v0001_first import DIGEST, ID, MOMENT, OPTIONS, TEXT, WORD

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES = (("uri_digest", "id"), ("artifact_id", "uri_digest", "id"), ("run_id",))


def upgrade() -> None:
    create_table(
        "lineage_reading",
        sa.Column("id", ID, nullable=False),
        sa.Column("uri_digest", DIGEST, nullable=False),
        sa.Column("uri", TEXT, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("role", WORD, nullable=False),
        sa.Column("artifact_id", ID, nullable=False),
        sa.Column("read_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_reading"),
        sa.ForeignKeyConstraint(["run_id"], ["lineage_run.id"], name="fk_lineage_reading_run_id"),
        sa.ForeignKeyConstraint(["artifact_id"], ["lineage_artifact.id"], name="fk_lineage_reading_artifact_id"),
        **OPTIONS,
    )
    for columns in INDEXES:
        create_index("_".join(("ix", "lineage_reading", *columns)), "lineage_reading", columns)


def downgrade() -> None:
    drop_table("lineage_reading")
