"""Reads. Each function takes a connection and returns models or records."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from kohakuriver.host.store import rows, tables
from kohakuriver.host.store.records import (
    EnrolmentRow,
    JoinTokenRow,
    NodeRow,
    NumberedEvent,
    OrderRow,
    RegistryCredentialRow,
    StoredEvent,
    TokenRow,
    UserRow,
    VpsAssignment,
)
from kohakuriver.host.store.restore_mark import META_KEY, RestoreMark, decode_mark
from kohakuriver.host.store.specs import SpecReader
from kohakuriver.host.store.statements import Unindexed
from kohakuriver.host.store.writes import NEWEST_NUMBER_KEY, NEWEST_ORDER_KEY
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState, TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import FINAL

_tasks = tables.tasks
_IDS_AT_ONCE = 500
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
    found = tasks_of(connection, connection.execute(select(_tasks).where(_tasks.c.id == task_id)))
    return found[0] if found else None


def find_attempt(connection: Connection, task_id: TaskId, number: int) -> Attempt | None:
    """An attempt that is over; None for any other, and for what a host before the table kept nothing of."""
    attempts = tables.attempts
    query = select(attempts).where(attempts.c.task_id == task_id, attempts.c.number == number)
    row = connection.execute(query).first()
    return None if row is None else rows.attempt_of(row)


def tasks_of(connection: Connection, found: Iterable[Any], *, cut: bool = False) -> list[Task]:
    """Read whole rows of tasks, and each spec that is kept apart once. `cut`: see `SpecReader`."""
    listed = list(found)
    wanted = list({row.spec_id for row in listed if row.spec_id is not None})
    reader = SpecReader(_specs_apart(connection, wanted), cut=cut)
    return [rows.task_of(row, reader.spec_of(row)) for row in listed]


def _specs_apart(connection: Connection, wanted: list[int]) -> Iterator[Any]:
    specs = tables.task_specs
    for begin in range(0, len(wanted), _IDS_AT_ONCE):
        some = wanted[begin : begin + _IDS_AT_ONCE]
        yield from connection.execute(select(specs).where(specs.c.id.in_(some)))


def list_tasks(connection: Connection, wanted: TaskFilter) -> list[Task]:
    """Newest first, each as a list shows it: `spec` is a `CutSpec` where that is not all."""
    return tasks_of(connection, connection.execute(narrowed(select(_tasks), wanted)), cut=True)


def narrowed(query: Select[Any], wanted: TaskFilter) -> Select[Any]:
    """Ask only for these tasks, newest first."""
    for condition in _conditions(wanted):
        query = query.where(condition)
    return query.order_by(_tasks.c.id.desc()).limit(wanted.limit).offset(wanted.offset)


def _conditions(wanted: TaskFilter) -> list[ColumnElement[bool]]:
    """What to ask of each row. Only what narrows most may choose the index.

    A database that knows nothing of how values are spread takes the index on the type, left to itself, and
    walks through all tasks there ever were for a list that holds none.
    """
    by_name = [(_tasks.c.name, wanted.name)]
    by_place = [
        (_tasks.c.owner, wanted.owner),
        (_tasks.c.assigned_node, wanted.node),
        (_tasks.c.state, wanted.state and wanted.state.value),
    ]
    by_type = [(_tasks.c.task_type, wanted.task_type and wanted.task_type.value)]
    conditions: list[ColumnElement[bool]] = []
    for group in (by_name, by_place, by_type):
        given = [(column, value) for column, value in group if value is not None]
        conditions += [(Unindexed(column) if conditions else column) == value for column, value in given]
    return conditions


def live_tasks(connection: Connection) -> list[Task]:
    """Every task that is not final, oldest first."""
    live = _tasks.c.state.in_(_LIVE)
    specs = tables.task_specs
    apart = select(specs).where(specs.c.id.in_(select(_tasks.c.spec_id).where(live)))
    reader = SpecReader(connection.execute(apart), share_equal=True)
    query = select(_tasks).where(live).order_by(_tasks.c.id)
    # Row by row: there may be 100,000, and as rows they are larger than as tasks that share their specs.
    return [rows.task_of(row, reader.spec_of(row)) for row in connection.execute(query)]


def failed_vps(connection: Connection) -> list[Task]:
    """VPSs that can be started again although their state is final for every other task."""
    wanted = TaskFilter(TaskType.VPS)
    # The index on the type is to be used: VPSs are few, failed tasks may be many.
    failed = Unindexed(_tasks.c.state) == TaskState.FAILED.value
    query = select(_tasks).where(*_conditions(wanted), failed).order_by(_tasks.c.id)
    return tasks_of(connection, connection.execute(query))


def newest_id(connection: Connection) -> int:
    """The highest id that a task has or an order ever had, 0 in an empty store."""
    ids = (select(func.max(_tasks.c.id)), select(func.max(tables.orders.c.id)))
    told = select(tables.meta.c.value).where(tables.meta.c.key == NEWEST_ORDER_KEY)
    newest_order = int(connection.execute(told).scalar() or 0)
    return max(newest_order, *(connection.execute(query).scalar() or 0 for query in ids))


def restore_mark(connection: Connection) -> RestoreMark | None:
    """What a restore left in this database; None if it never was restored."""
    query = select(tables.meta.c.value).where(tables.meta.c.key == META_KEY)
    text = connection.execute(query).scalar()
    return None if text is None else decode_mark(text)


def task_ids_ending(connection: Connection, digits: str, limit: int) -> Sequence[int]:
    """Ids whose decimal form ends with the digits, in no order: an order would make this read whole rows
    of all tasks, and not only an index.
    """
    query = select(_tasks.c.id).where(_tasks.c.id % 10 ** len(digits) == int(digits)).limit(limit)
    return connection.execute(query).scalars().all()


def task_history(connection: Connection, task_id: TaskId) -> list[StoredEvent]:
    events = tables.task_events
    query = select(events).where(events.c.task_id == task_id).order_by(events.c.id)
    return [rows.event_of(row) for row in connection.execute(query)]


def events_after(connection: Connection, number: int, limit: int) -> list[NumberedEvent]:
    """The next lines of all histories after the one of that number, in the order of their commits."""
    events = tables.task_events
    query = (
        select(events, _tasks.c.owner)
        .join(_tasks, _tasks.c.id == events.c.task_id)
        .where(events.c.id > number)
        .order_by(events.c.id)
        .limit(limit)
    )
    return [NumberedEvent(row.id, row.owner, rows.event_of(row)) for row in connection.execute(query)]


def newest_event(connection: Connection) -> int:
    """The number of the newest line of history, 0 if there is none."""
    return connection.execute(select(func.max(tables.task_events.c.id))).scalar() or 0


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


def newest_token_number(connection: Connection) -> int:
    """The highest number that a token ever had, 0 if there never was one."""
    told = select(tables.meta.c.value).where(tables.meta.c.key == NEWEST_NUMBER_KEY)
    known = connection.execute(select(func.max(tables.tokens.c.number))).scalar() or 0
    return max(known, int(connection.execute(told).scalar() or 0))


def all_assignments(connection: Connection) -> list[VpsAssignment]:
    return [rows.assignment_of(row) for row in connection.execute(select(tables.vps_assignments))]


def all_registry_credentials(connection: Connection) -> list[RegistryCredentialRow]:
    return [
        rows.registry_credential_of(row) for row in connection.execute(select(tables.registry_credentials))
    ]
