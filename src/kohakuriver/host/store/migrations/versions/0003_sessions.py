"""What a VPS has beside its state, and the users whom it is assigned to."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """No task of before is a VPS."""
    op.add_column("tasks", sa.Column("session", sa.LargeBinary(), nullable=True))
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "vps_assignments",
        sa.Column("task_id", number, primary_key=True, autoincrement=False),
        sa.Column("user_name", sa.String(length=128), primary_key=True),
        sa.Column("assigned_by", sa.String(length=128), nullable=False),
        sa.Column("assigned_at", number, nullable=False),
    )
