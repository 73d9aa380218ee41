"""Which users may use which sessions that are not their own. Rows are kept in memory over the store."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

from kohakuriver.host.store import queries, writes
from kohakuriver.host.store.records import VpsAssignment
from kohakuriver.host.store.store import Store
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId

MAX_ASSIGNMENTS = 200


class Assignments:
    """Make it with `open`; used only from the event loop. A change is written before it counts."""

    def __init__(self, store: Store, rows: Iterable[VpsAssignment]) -> None:
        self._store = store
        self._rows: dict[TaskId, dict[str, VpsAssignment]] = {}
        for row in rows:
            self._rows.setdefault(row.task_id, {})[row.user_name] = row

    @classmethod
    async def open(cls, store: Store) -> "Assignments":
        return cls(store, await store.read(queries.all_assignments))

    def of(self, task_id: TaskId) -> list[VpsAssignment]:
        """By the users' names."""
        return [row for _, row in sorted(self._rows.get(task_id, {}).items())]

    def has(self, task_id: TaskId, user_name: str) -> bool:
        return user_name in self._rows.get(task_id, ())

    async def add(self, task_id: TaskId, user_name: str, by: str) -> VpsAssignment:
        """Free if it is there; raises Conflict for more than `MAX_ASSIGNMENTS` of one session."""
        known = self._rows.setdefault(task_id, {})
        if user_name in known:
            return known[user_name]
        if len(known) >= MAX_ASSIGNMENTS:
            raise Conflict(f"session {task_id} is assigned to {MAX_ASSIGNMENTS} users; take one out first")
        row = VpsAssignment(task_id, user_name, by, datetime.now(UTC))
        await self._store.write(partial(writes.put_assignment, assignment=row))
        known[user_name] = row
        return row

    def forget(self, task_id: TaskId) -> None:
        """Follow the store, from which a session was deleted with its assignments."""
        self._rows.pop(task_id, None)

    async def remove(self, task_id: TaskId, user_name: str) -> None:
        """Raises NotFound if the session is not assigned to that user."""
        if not self.has(task_id, user_name):
            raise NotFound(f"session {task_id} is not assigned to {user_name[:80]!r}")
        await self._store.write(partial(writes.delete_assignment, task_id=task_id, user_name=user_name))
        self._rows[task_id].pop(user_name, None)
