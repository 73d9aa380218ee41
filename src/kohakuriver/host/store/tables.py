"""The tables as the newest migration leaves them. A change here comes with a migration.

Times are integers, microseconds since 1970 in UTC: they compare, index and copy faster than texts.
"""

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from kohakuriver.host.store.statements import Number

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("spec", LargeBinary, nullable=False),
    Column("spec_id", Number),
    Column("name", String(64)),
    Column("task_type", String(16), nullable=False),
    Column("owner", String(128), nullable=False),
    Column("batch_id", Number),
    Column("submitted_at", Number, nullable=False),
    Column("state", String(20), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("assigned_node", String(255)),
    Column("kill_requested", Boolean, nullable=False),
    Column("exit_code", Integer),
    Column("error_message", Text),
    Column("decided_by", String(128)),
    Column("started_at", Number),
    Column("completed_at", Number),
    Column("stdout_path", Text),
    Column("stderr_path", Text),
    Column("stdout_bytes", Number),
    Column("stderr_bytes", Number),
    Column("retries_used", Integer, nullable=False),
    Column("move_requested", Boolean, nullable=False),
    Column("left_node", String(255)),
    Column("session", LargeBinary),
    Column("image_digest", String(255)),
)
Index("tasks_by_type", tasks.c.task_type, tasks.c.id)
Index("tasks_by_state", tasks.c.state, tasks.c.id)
Index("tasks_by_node", tasks.c.assigned_node, tasks.c.id)
Index("tasks_by_owner", tasks.c.owner, tasks.c.id)
Index("tasks_by_name", tasks.c.name, tasks.c.id)
Index("tasks_by_owner_state", tasks.c.owner, tasks.c.state, tasks.c.id)
Index("tasks_by_node_state", tasks.c.assigned_node, tasks.c.state, tasks.c.id)

# The attempts that are over, each written when it ended. A task's newest one is in its own row as well.
attempts = Table(
    "attempts",
    metadata,
    Column("task_id", Number, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("node", String(255)),
    Column("revision", Integer, nullable=False),
    Column("started_at", Number),
    Column("completed_at", Number),
    Column("stdout_path", Text),
    Column("stderr_path", Text),
    Column("stdout_bytes", Number),
    Column("stderr_bytes", Number),
    Column("exit_code", Integer),
    Column("image_digest", String(255)),
    Column("address", String(64)),
    Column("end", String(20), nullable=False),
    Column("message", Text),
)

# What tasks of one batch ask for alike, and what is large: the column `spec` of `tasks` has the rest. The row
# of a task is written anew with each of its steps, and a spec never changes.
task_specs = Table(
    "task_specs",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("spec", LargeBinary, nullable=False),
)

task_events = Table(
    "task_events",
    metadata,
    Column("id", Number, primary_key=True),
    Column("task_id", Number, nullable=False),
    Column("at", Number, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("detail", Text),
)
Index("task_events_by_task", task_events.c.task_id, task_events.c.id)

vps_assignments = Table(
    "vps_assignments",
    metadata,
    Column("task_id", Number, primary_key=True, autoincrement=False),
    Column("user_name", String(128), ForeignKey("users.name", ondelete="CASCADE"), primary_key=True),
    Column("assigned_by", String(128), nullable=False),
    Column("assigned_at", Number, nullable=False),
)

registry_credentials = Table(
    "registry_credentials",
    metadata,
    Column("registry", String(300), primary_key=True),
    Column("username", String(1000), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("kept_by", String(128), nullable=False),
    Column("kept_at", Number, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),
    Column("node", String(255), nullable=False),
    Column("task_id", Number, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("created_at", Number, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("hostname", String(255), primary_key=True),
    Column("public_key", String(64), nullable=False),
    Column("approved_by", String(128), nullable=False),
    Column("approved_at", Number, nullable=False),
    Column("registration", LargeBinary),
    Column("address", String(255)),
    Column("faults", LargeBinary, nullable=False),
    Column("draining", Boolean, nullable=False),
)

enrolments = Table(
    "enrolments",
    metadata,
    Column("fingerprint", String(80), primary_key=True),
    Column("hostname", String(255), nullable=False),
    Column("public_key", String(64), nullable=False),
    Column("first_seen", Number, nullable=False),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("secret", String(128), nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("created_at", Number, nullable=False),
    Column("expires_at", Number, nullable=False),
    Column("used_by_key", String(64)),
)

users = Table(
    "users",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", Number, nullable=False),
    Column("number", Integer, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_name", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("created_at", Number, nullable=False),
    Column("parent_id", String(32)),
    Column("number", Integer, nullable=False),
    Column("last_used_at", Number),
)
Index("tokens_by_user", tokens.c.user_name)
