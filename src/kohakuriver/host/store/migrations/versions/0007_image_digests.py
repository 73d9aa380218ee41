"""Which image a task ran in."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Of tasks of before it is not known."""
    op.add_column("tasks", sa.Column("image_digest", sa.String(length=255), nullable=True))
