"""Which token a token was made with."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Tokens of before were made with none that is known."""
    op.add_column("tokens", sa.Column("parent_id", sa.String(length=32), nullable=True))
