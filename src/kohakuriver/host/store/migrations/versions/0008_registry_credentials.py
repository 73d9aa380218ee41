"""Credentials for registries."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """What is sealed in them can be opened only with the host's key."""
    op.create_table(
        "registry_credentials",
        sa.Column("registry", sa.String(length=300), primary_key=True),
        sa.Column("username", sa.String(length=1000), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("kept_by", sa.String(length=128), nullable=False),
        sa.Column("kept_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
    )
