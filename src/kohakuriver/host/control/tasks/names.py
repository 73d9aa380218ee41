"""Finding a task by what people write: its id, the end of it, or its name."""

from functools import partial

from kohakuriver.host.store import queries
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import TaskType
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId, parse_task_id

_WHOLE_ID_DIGITS = 18
_FEWEST_DIGITS = 4


async def resolve_task(store: Store, ref: str, named: TaskType | None = None) -> TaskId:
    """Find a task by its id, an unambiguous ending of it (4 digits or more), or its newest name.

    `named`: of which type it must be if it is meant by its name.
    """
    if ref.isascii() and ref.isdigit():
        if len(ref) < _WHOLE_ID_DIGITS:
            return await _resolve_ending(store, ref)
        task = await store.read(partial(queries.find_task, task_id=parse_task_id(ref)))
        if task is None:
            raise NotFound(f"there is no task {ref[:80]}")
        return task.id
    wanted = TaskFilter(named, name=ref, limit=1)
    found = await store.read(partial(queries.list_tasks, wanted=wanted))
    if not found:
        raise NotFound(f"there is no task with the name or id {ref[:80]!r}")
    return found[0].id


async def _resolve_ending(store: Store, digits: str) -> TaskId:
    if len(digits) < _FEWEST_DIGITS:
        raise NotFound(f"{digits!r} is too short; give at least the last 4 digits of an id")
    ids = await store.read(partial(queries.task_ids_ending, digits=digits, limit=2))
    if not ids:
        raise NotFound(f"there is no task whose id ends with {digits}")
    if len(ids) > 1:
        raise Conflict(f"several tasks' ids end with {digits}; give more digits")
    return TaskId(ids[0])
