"""The attempts that are over."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_OVER = "'completed', 'failed', 'killed', 'killed_oom', 'stopped'"


def upgrade() -> None:
    """Of a task of before, the newest attempt is known; it is over if the task ended on a node."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "attempts",
        sa.Column("task_id", number, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("node", sa.String(length=255), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("started_at", number, nullable=True),
        sa.Column("completed_at", number, nullable=True),
        sa.Column("stdout_path", sa.Text(), nullable=True),
        sa.Column("stderr_path", sa.Text(), nullable=True),
        sa.Column("stdout_bytes", number, nullable=True),
        sa.Column("stderr_bytes", number, nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("image_digest", sa.String(length=255), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("end", sa.String(length=20), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO attempts SELECT id, attempt, assigned_node, revision, started_at, completed_at, "  # noqa: S608 - ours
        "stdout_path, stderr_path, stdout_bytes, stderr_bytes, exit_code, image_digest, "
        "json_extract(CAST(session AS TEXT), '$.address'), state, error_message "
        f"FROM tasks WHERE attempt > 0 AND assigned_node IS NOT NULL AND state IN ({_OVER}) ORDER BY id"
    )
