"""Experiments: named groups of runs, each with the number that it has there."""

from __future__ import annotations

import sqlalchemy as sa

from chapkit_flows.lineage.migrations.changes import create_index, create_table, drop_table
from chapkit_flows.lineage.migrations.versions.v0001_first import DIGEST, ID, MOMENT, OPTIONS, TEXT
from chapkit_flows.lineage.migrations.versions.v0006_registry import NAME, WORD

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_table(
        "lineage_experiment",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("author", NAME, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_experiment"),
        **OPTIONS,
    )
    create_index("ix_lineage_experiment_name", "lineage_experiment", ("name",), unique=True)
    create_table(
        "lineage_trial",
        sa.Column("id", ID, nullable=False),
        sa.Column("experiment_id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("identity", DIGEST, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_trial"),
        sa.ForeignKeyConstraint(["experiment_id"], ["lineage_experiment.id"], name="fk_lineage_trial_experiment_id"),
        sa.ForeignKeyConstraint(["run_id"], ["lineage_run.id"], name="fk_lineage_trial_run_id"),
        **OPTIONS,
    )
    create_index("ix_lineage_trial_experiment_id_number", "lineage_trial", ("experiment_id", "number"), unique=True)
    create_index("ix_lineage_trial_run_id", "lineage_trial", ("run_id",))


def downgrade() -> None:
    drop_table("lineage_trial")
    drop_table("lineage_experiment")
