"""Specs that tasks share or that are large, kept once; and assignments that go with their user."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Existing tasks keep their specs in their own rows. What was assigned to nobody would be the right of
    whoever comes to have that name."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "task_specs",
        sa.Column("id", number, primary_key=True, autoincrement=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
    )
    op.add_column("tasks", sa.Column("spec_id", number, nullable=True))
    op.execute("DELETE FROM vps_assignments WHERE user_name NOT IN (SELECT name FROM users)")
    with op.batch_alter_table("vps_assignments") as table:
        table.create_foreign_key("vps_assignments_user", "users", ["user_name"], ["name"], ondelete="CASCADE")
