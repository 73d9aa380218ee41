"""One lock per task, made when wanted and dropped when nobody holds or awaits it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kohakuriver.models.ids import TaskId


@dataclass(slots=True)
class _Counted:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class TaskLocks:
    def __init__(self) -> None:
        self._locks: dict[TaskId, _Counted] = {}

    @asynccontextmanager
    async def of(self, task_id: TaskId) -> AsyncIterator[None]:
        counted = self._locks.setdefault(task_id, _Counted())
        counted.users += 1
        try:
            async with counted.lock:
                yield
        finally:
            counted.users -= 1
            if not counted.users:
                del self._locks[task_id]
