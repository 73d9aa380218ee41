"""Lists of tasks for a reader who keeps the texts it made of them: only what has changed is read in full."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from kohakuriver.host.store import tables
from kohakuriver.host.store.queries import TaskFilter, narrowed, tasks_of
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task

_tasks = tables.tasks
_FIXED = ("id", "owner", "spec", "spec_id", "name", "task_type", "batch_id", "submitted_at")
"""The columns that stay as they were submitted."""
_columns = [_tasks.c[name] for name in _FIXED]
_columns += [column for column in _tasks.c if column.name not in _FIXED]


class TaskMark(NamedTuple):
    """What tells whether a task is still as it was: `changing` are the values that may have changed."""

    id: TaskId
    owner: str
    decided_by: str | None
    changing: tuple[Any, ...]


def list_with_kept(
    connection: Connection, wanted: TaskFilter, kept: Callable[[TaskMark], bytes | None]
) -> list[tuple[TaskMark, Task | bytes]]:
    """List like `list_tasks`; a text that `kept` has for a mark stands in place of the task."""
    rows = list(connection.execute(narrowed(select(*_columns), wanted)))
    listed = [_mark_of(row) for row in rows]
    found = [kept(mark) for mark in listed]
    missing = [row for row, known in zip(rows, found, strict=True) if known is None]
    tasks = iter(tasks_of(connection, missing, cut=True))
    return [
        (mark, next(tasks) if known is None else known) for mark, known in zip(listed, found, strict=True)
    ]


def _mark_of(row: Any) -> TaskMark:
    return TaskMark(row[0], row[1], row.decided_by, row[len(_FIXED) :])
