"""Records and histories of tasks that ended long ago: which there are, and their deletion.

A task counts as ended only if nothing can begin again of it: VPSs that can be started again do not.
Moments are microseconds since 1970, as in the tables. The newest record and the newest event always stay:
numbers that come after go on from theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from kohakuriver.host.store import tables
from kohakuriver.host.store.deletions import delete_tasks
from kohakuriver.host.store.statements import Unindexed
from kohakuriver.models.enums import TaskType
from kohakuriver.models.ids import TaskId, highest_id_at
from kohakuriver.models.transitions import FINAL, RESTARTABLE

_tasks = tables.tasks
_events = tables.task_events
_FINAL = [state.value for state in FINAL]
_RESTARTABLE = [state.value for state in RESTARTABLE]


@dataclass(frozen=True, slots=True)
class EndedTask:
    """`has_output`: some was written to shared storage, so far as its record tells."""

    id: TaskId
    has_output: bool


@dataclass(frozen=True, slots=True)
class OldEvents:
    """Part of a walk over histories. `seen_up_to`: the last event looked at; None: that was all."""

    ids: tuple[int, ...]
    seen_up_to: int | None


def _ended_before(moment: int) -> ColumnElement[bool]:
    """No index on the state is to be used: rows are walked by their ids."""
    state = Unindexed(_tasks.c.state)
    can_begin_again = and_(_tasks.c.task_type == TaskType.VPS.value, state.in_(_RESTARTABLE))
    return and_(state.in_(_FINAL), ~can_begin_again, _tasks.c.completed_at < moment)


def ended_tasks(connection: Connection, before: int, after_id: int, limit: int) -> list[EndedTask]:
    """The next tasks that ended before the moment, by their ids. Each was submitted before that, too."""
    newest = select(func.max(_tasks.c.id)).scalar_subquery()
    query = (
        select(_tasks.c.id, _tasks.c.stdout_path)
        .where(_tasks.c.id > after_id, _tasks.c.id <= highest_id_at(before // 1000), _tasks.c.id < newest)
        .where(_ended_before(before))
        .order_by(_tasks.c.id)
        .limit(limit)
    )
    return [EndedTask(TaskId(row.id), row.stdout_path is not None) for row in connection.execute(query)]


def those_ended(connection: Connection, task_ids: Sequence[int], before: int) -> set[int]:
    """Which of these tasks are known, and ended before the moment."""
    query = select(_tasks.c.id).where(_tasks.c.id.in_(task_ids), _ended_before(before))
    return set(connection.execute(query).scalars())


def delete_ended(connection: Connection, task_ids: Sequence[int], before: int) -> int:
    """Delete those of these tasks that ended before the moment; return how many."""
    ended = [TaskId(task_id) for task_id in those_ended(connection, task_ids, before)]
    delete_tasks(connection, ended)
    return len(ended)


def old_events(connection: Connection, before: int, after: int, limit: int) -> OldEvents:
    """Look at the next events: which are older than the moment, and of tasks that ended before it."""
    newest = select(func.max(_events.c.id)).scalar_subquery()
    query = (
        select(_events.c.id, _events.c.at, _tasks.c.id.label("task"), _ended_before(before).label("ended"))
        .outerjoin(_tasks, _tasks.c.id == _events.c.task_id)
        .where(_events.c.id > after, _events.c.id < newest)
        .order_by(_events.c.id)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    old = tuple(row.id for row in rows if row.at < before and (row.task is None or row.ended))
    is_last = len(rows) < limit or rows[-1].at >= before
    return OldEvents(old, None if is_last else rows[-1].id)


def delete_events(connection: Connection, ids: Sequence[int]) -> int:
    return connection.execute(delete(_events).where(_events.c.id.in_(ids))).rowcount
