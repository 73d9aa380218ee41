"""Reads. Each function takes a connection and returns models or records."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Select, func, select

from kohakuriver.host.store import rows, tables
from kohakuriver.host.store.records import (
    EnrolmentRow,
    JoinTokenRow,
    NodeRow,
    OrderRow,
    TaskEvent,
    TokenRow,
    UserRow,
)
from kohakuriver.models.enums import TaskState, TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import FINAL

_tasks = tables.tasks
_LIVE = [state.value for state in TaskState if state not in FINAL]


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a list shows, newest first; None leaves that out of the question."""

    task_type: TaskType | None = None
    state: TaskState | None = None
    node: str | None = None
    owner: str | None = None
    name: str | None = None
    limit: int = 100
    offset: int = 0


def find_task(connection: Connection, task_id: TaskId) -> Task | None:
    row = connection.execute(select(_tasks).where(_tasks.c.id == task_id)).first()
    return None if row is None else rows.task_of(row)


def list_tasks(connection: Connection, wanted: TaskFilter) -> list[Task]:
    query: Select[tuple[object, ...]] = select(_tasks).order_by(_tasks.c.id.desc())
    conditions = (
        (_tasks.c.task_type, wanted.task_type and wanted.task_type.value),
        (_tasks.c.state, wanted.state and wanted.state.value),
        (_tasks.c.assigned_node, wanted.node),
        (_tasks.c.owner, wanted.owner),
        (_tasks.c.name, wanted.name),
    )
    for column, value in conditions:
        if value is not None:
            query = query.where(column == value)
    result = connection.execute(query.limit(wanted.limit).offset(wanted.offset))
    return [rows.task_of(row) for row in result]


def live_tasks(connection: Connection) -> list[Task]:
    """Every task that may still change: all that are not final, oldest first."""
    query = select(_tasks).where(_tasks.c.state.in_(_LIVE)).order_by(_tasks.c.id)
    return [rows.task_of(row) for row in connection.execute(query)]


def newest_id(connection: Connection) -> int:
    """The highest id of a task or an open order in the store, 0 in an empty one."""
    ids = (select(func.max(_tasks.c.id)), select(func.max(tables.orders.c.id)))
    return max(connection.execute(query).scalar() or 0 for query in ids)


def task_ids_ending(connection: Connection, digits: str, limit: int) -> Sequence[int]:
    """Ids whose decimal form ends with the digits, newest first."""
    query = (
        select(_tasks.c.id)
        .where(_tasks.c.id % 10 ** len(digits) == int(digits))
        .order_by(_tasks.c.id.desc())
        .limit(limit)
    )
    return connection.execute(query).scalars().all()


def task_history(connection: Connection, task_id: TaskId) -> list[TaskEvent]:
    events = tables.task_events
    query = select(events).where(events.c.task_id == task_id).order_by(events.c.id)
    return [rows.event_of(row) for row in connection.execute(query)]


def all_orders(connection: Connection) -> list[OrderRow]:
    query = select(tables.orders).order_by(tables.orders.c.id)
    return [rows.order_of(row) for row in connection.execute(query)]


def all_nodes(connection: Connection) -> list[NodeRow]:
    return [rows.node_of(row) for row in connection.execute(select(tables.nodes))]


def all_enrolments(connection: Connection) -> list[EnrolmentRow]:
    return [rows.enrolment_of(row) for row in connection.execute(select(tables.enrolments))]


def all_join_tokens(connection: Connection) -> list[JoinTokenRow]:
    return [rows.join_token_of(row) for row in connection.execute(select(tables.join_tokens))]


def all_users(connection: Connection) -> list[UserRow]:
    return [rows.user_of(row) for row in connection.execute(select(tables.users))]


def all_tokens(connection: Connection) -> list[TokenRow]:
    return [rows.token_of(row) for row in connection.execute(select(tables.tokens))]
