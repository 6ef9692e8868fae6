"""The numbered history of named configs."""

from __future__ import annotations

import sqlalchemy as sa

from chapkit_flows.lineage.migrations.changes import create_table, drop_table
from chapkit_flows.lineage.migrations.versions.v0003_search import ID, MOMENT, NAME, OPTIONS, TEXT, WORD

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

DIGEST = sa.String(80)
VERSION = "lineage_config_version.digest"


def upgrade() -> None:
    create_table(
        "lineage_config_entry",
        sa.Column("id", ID, nullable=False),
        sa.Column("block_type", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("origin", WORD, nullable=False),
        sa.Column("author", NAME, nullable=False),
        sa.Column("note", TEXT),
        sa.Column("restored", sa.Integer()),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_config_entry"),
        sa.ForeignKeyConstraint(["digest"], [VERSION], name="fk_lineage_config_entry_digest"),
        sa.UniqueConstraint("block_type", "name", "sequence", name="uq_lineage_config_entry_block_type"),
        **OPTIONS,
    )


def downgrade() -> None:
    drop_table("lineage_config_entry")
