"""Who waits for which task to end. Told by the control loop, after the commit."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from kohakuriver.host.store.records import Changes
from kohakuriver.models.ids import TaskId
from kohakuriver.models.transitions import ENDED


class Endings:
    """Events by task; used from the event loop alone."""

    def __init__(self) -> None:
        self._watchers: dict[TaskId, set[asyncio.Event]] = {}

    @contextmanager
    def watched(self, task_id: TaskId) -> Iterator[asyncio.Event]:
        """Give an event that is set when the task ends. Look at its record after that, not before."""
        event = asyncio.Event()
        watchers = self._watchers.setdefault(task_id, set())
        watchers.add(event)
        try:
            yield event
        finally:
            watchers.discard(event)
            if not watchers and self._watchers.get(task_id) is watchers:
                del self._watchers[task_id]

    def tell(self, changes: Changes) -> None:
        for task in (*changes.new_tasks.values(), *changes.changed_tasks.values()):
            if task.state in ENDED:
                for event in self._watchers.get(task.id, ()):
                    event.set()
