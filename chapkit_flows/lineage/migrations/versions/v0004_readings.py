"""Which URI brought which dataset, each time that a run read it; an index from runs to their metrics."""

from __future__ import annotations

import sqlalchemy as sa

from chapkit_flows.lineage.migrations.changes import create_index, create_table, drop_index, drop_table
from chapkit_flows.lineage.migrations.versions.v0001_first import DIGEST, ID, MOMENT, OPTIONS, TEXT, WORD
from chapkit_flows.lineage.migrations.versions.v0003_search import name_of

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES = (
    ("lineage_reading", ("uri_digest", "id")),
    ("lineage_reading", ("artifact_id", "uri_digest", "id")),
    ("lineage_reading", ("run_id",)),
    ("lineage_metric", ("name", "run_id", "value", "subject_id")),
)


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
    for table, columns in INDEXES:
        create_index(name_of(table, columns), table, columns)


def downgrade() -> None:
    drop_index(name_of(*INDEXES[-1]), INDEXES[-1][0])
    drop_table("lineage_reading")
