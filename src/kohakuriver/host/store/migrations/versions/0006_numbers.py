"""Numbers of users and tokens, by which earlier clients name them, and when a token was last used."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Those of before are numbered in the order in which they were made."""
    for table in ("users", "tokens"):
        op.add_column(table, sa.Column("number", sa.Integer(), nullable=False, server_default="0"))
        key = "name" if table == "users" else "id"
        op.execute(
            f"UPDATE {table} SET number = (SELECT COUNT(*) FROM {table} AS before WHERE "  # noqa: S608 - ours
            f"before.created_at < {table}.created_at OR "
            f"(before.created_at = {table}.created_at AND before.{key} <= {table}.{key}))"
        )
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("tokens", sa.Column("last_used_at", number, nullable=True))
