"""Alembic's entry: migrates over the connection that `upgrade.py` gives it."""

from alembic import context

from chapkit_flows.lineage.migrations import VERSION_TABLE
from chapkit_flows.lineage.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    version_table=VERSION_TABLE,
    compare_type=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
