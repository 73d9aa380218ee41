"""Records of tasks that are deleted, with what belongs only to them: history, attempts, orders,
assignments, specs."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from kohakuriver.host.store import tables
from kohakuriver.models.ids import TaskId

_IDS_AT_ONCE = 500
_BATCH_IDS = 10_000 << 22
"""Ids of ten seconds. A batch is submitted in one turn, so those of its tasks lie closer together by far."""


def delete_tasks(connection: Connection, task_ids: Sequence[TaskId]) -> None:
    """Delete them; what of a batch's spec is still wanted by others of it stays."""
    for begin in range(0, len(task_ids), _IDS_AT_ONCE):
        _delete_some(connection, task_ids[begin : begin + _IDS_AT_ONCE])


def _delete_some(connection: Connection, task_ids: Sequence[TaskId]) -> None:
    tasks = tables.tasks
    spec_of = select(tasks.c.spec_id).where(tasks.c.id.in_(task_ids), tasks.c.spec_id.is_not(None)).distinct()
    spec_ids = connection.execute(spec_of).scalars().all()
    for table in (tables.task_events, tables.orders, tables.attempts, tables.vps_assignments):
        connection.execute(delete(table).where(table.c.task_id.in_(task_ids)))
    connection.execute(delete(tasks).where(tasks.c.id.in_(task_ids)))
    unused = [spec_id for spec_id in spec_ids if not _is_used(connection, spec_id)]
    connection.execute(delete(tables.task_specs).where(tables.task_specs.c.id.in_(unused)))


def _is_used(connection: Connection, spec_id: int) -> bool:
    """No index tells: it would cost each submission something, and this looks at few rows, side by side."""
    tasks = tables.tasks
    near = tasks.c.id.between(spec_id, spec_id + _BATCH_IDS)
    query = select(tasks.c.id).where(near, tasks.c.spec_id == spec_id).limit(1)
    return connection.execute(query).first() is not None
