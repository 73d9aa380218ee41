"""What a transaction writes. Statements are built once and compiled once; rows go in by executemany."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Delete,
    Insert,
    Table,
    Update,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.host.store import rows, tables
from kohakuriver.host.store.deletions import delete_tasks
from kohakuriver.host.store.records import Changes, RegistryCredentialRow
from kohakuriver.host.store.specs import keep_specs
from kohakuriver.host.store.statements import Upsert
from kohakuriver.models.tasks import Task

_MUTABLE_COLUMNS = (
    "state",
    "attempt",
    "revision",
    "assigned_node",
    "kill_requested",
    "exit_code",
    "error_message",
    "decided_by",
    "started_at",
    "completed_at",
    "stdout_path",
    "stderr_path",
    "stdout_bytes",
    "stderr_bytes",
    "retries_used",
    "move_requested",
    "left_node",
    "session",
    "image_digest",
)
NEWEST_NUMBER_KEY = "newest_token_number"
"""Number of the newest token, which must never come again either."""
NEWEST_ORDER_KEY = "newest_order"
"""Number of the newest order. The order goes when it is answered, and its number must never come again."""

_update_task: Update = (
    update(tables.tasks)
    .where(tables.tasks.c.id == bindparam("row_id"))
    .values({name: bindparam(name) for name in _MUTABLE_COLUMNS})
)
_update_use: Update = (
    update(tables.tokens)
    .where(tables.tokens.c.id == bindparam("row_id"))
    .values(last_used_at=bindparam("last_used_at"))
)
_delete_assignment: Delete = delete(tables.vps_assignments).where(
    tables.vps_assignments.c.task_id == bindparam("of_task"),
    tables.vps_assignments.c.user_name == bindparam("of_user"),
)


def apply_changes(connection: Connection, changes: Changes) -> None:
    """Write everything of one turn of the control loop."""
    _add_tasks(connection, list(changes.new_tasks.values()))
    _run(connection, _update_task, [rows.mutable_task_row(t) for t in changes.changed_tasks.values()])
    ended = [rows.attempt_row(task_id, attempt) for (task_id, _), attempt in changes.ended_attempts.items()]
    # What is known of its end may grow; at most once in the life of most.
    _run(connection, Upsert(tables.attempts), ended)
    _run(connection, insert(tables.task_events), [rows.event_row(event) for event in changes.events])
    _run(connection, insert(tables.orders), [rows.order_row(o) for o in changes.new_orders.values()])
    if changes.new_orders:
        put_meta(connection, NEWEST_ORDER_KEY, str(max(changes.new_orders)))
    _delete(connection, tables.orders, "id", changes.done_orders)
    # First gone, then there: a name may be taken again in the turn that removed its node.
    _delete(connection, tables.nodes, "hostname", changes.ended_nodes)
    _run(connection, Upsert(tables.nodes), [rows.node_row(node) for node in changes.nodes.values()])
    _run(connection, Upsert(tables.enrolments), [rows.enrolment_row(e) for e in changes.enrolments.values()])
    _delete(connection, tables.enrolments, "fingerprint", changes.ended_enrolments)
    _run(
        connection, Upsert(tables.join_tokens), [rows.join_token_row(t) for t in changes.join_tokens.values()]
    )
    _delete(connection, tables.join_tokens, "id", changes.ended_join_tokens)
    delete_tasks(connection, changes.deleted_tasks)
    _write_accounts(connection, changes)
    for key, value in changes.meta.items():
        put_meta(connection, key, value)
    reach(CrashPoint.HOST_ROWS_WRITTEN)


def _add_tasks(connection: Connection, tasks: list[Task]) -> None:
    kept, apart = keep_specs(tasks)
    _run(connection, insert(tables.task_specs), [{"id": key, "spec": spec} for key, spec in apart.items()])
    made = [rows.task_row(task, spec) for task, spec in zip(tasks, kept, strict=True)]
    _run(connection, insert(tables.tasks), made)


def _write_accounts(connection: Connection, changes: Changes) -> None:
    _run(connection, Upsert(tables.users), [rows.user_row(user) for user in changes.users.values()])
    # First all that are new: one may have been made and ended in the same turn, and its number was given out.
    made = changes.new_tokens.values()
    _run(connection, insert(tables.tokens), [rows.token_row(token) for token in made])
    if made:
        put_meta(connection, NEWEST_NUMBER_KEY, str(max(token.number for token in made)))
    _delete(connection, tables.tokens, "id", changes.ended_tokens)
    # First gone, then there: it may have been given again in the turn that took it.
    gone = [{"of_task": task_id, "of_user": name} for task_id, name in changes.ended_assignments]
    _run(connection, _delete_assignment, gone)
    given = changes.assignments.values()
    _run(connection, Upsert(tables.vps_assignments), [rows.assignment_row(row) for row in given])


def put_uses(connection: Connection, uses: Mapping[str, datetime]) -> None:
    """Keep when tokens were last used, by their ids."""
    _run(
        connection,
        _update_use,
        [{"row_id": token_id, "last_used_at": rows.to_micros(at)} for token_id, at in uses.items()],
    )


def put_registry_credential(connection: Connection, credential: RegistryCredentialRow) -> None:
    _run(connection, Upsert(tables.registry_credentials), [rows.registry_credential_row(credential)])


def delete_registry_credential(connection: Connection, registry: str) -> None:
    _delete(connection, tables.registry_credentials, "registry", [registry])


def meta_value(connection: Connection, key: str, default: str) -> str:
    """Return what is kept under the key, keeping the default first if there is nothing."""
    found = connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == key)).scalar()
    if found is not None:
        return str(found)
    connection.execute(insert(tables.meta), [{"key": key, "value": default}])
    return default


def put_meta(connection: Connection, key: str, value: str) -> None:
    _run(connection, Upsert(tables.meta), [{"key": key, "value": value}])


def _run(
    connection: Connection, statement: Insert | Update | Delete, parameters: list[dict[str, Any]]
) -> None:
    if parameters:
        connection.execute(statement, parameters)


def _delete(connection: Connection, table: Table, key: str, values: list[Any]) -> None:
    if values:
        statement: Delete = delete(table).where(table.c[key] == bindparam("row_key"))
        connection.execute(statement, [{"row_key": value} for value in values])
