"""Tasks that are run again, nodes that are being drained, and lists of one owner or node by state."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Existing tasks used no retries, and existing nodes are open; SQLite needs a value for their rows."""
    op.add_column("tasks", sa.Column("retries_used", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("move_requested", sa.Boolean(), nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("left_node", sa.String(length=255), nullable=True))
    op.add_column("nodes", sa.Column("draining", sa.Boolean(), nullable=False, server_default="0"))
    op.create_index("tasks_by_owner_state", "tasks", ["owner", "state", "id"], unique=False)
    op.create_index("tasks_by_node_state", "tasks", ["assigned_node", "state", "id"], unique=False)
