"""What may be asked of tasks. What changes something returns after the commit; records are the store's."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.host.control.tasks import submission
from kohakuriver.host.control.tasks.names import resolve_task
from kohakuriver.host.control.tasks.submission import SubmitResult
from kohakuriver.host.control.tasks.waiting_work import WaitingLimits
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store import queries, task_lists
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.records import Changes, NumberedEvent, StoredEvent
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.task_lists import TaskMark
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState, TaskType
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from kohakuriver.scheduling.explain import explain, never_fits


class Endings:
    """Who waits for which task to end: events by task, set after the commit; only from the event loop."""

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


class TaskControl:
    """`endings` hears of each commit, for those who wait for a task's end."""

    def __init__(self, loop: ControlLoop, store: Store, limits: WaitingLimits) -> None:
        self._loop = loop
        self._store = store
        self._limits = limits
        self.endings = Endings()

    async def submit(self, owner: str, specs: list[TaskSpec], needs_approval: bool) -> SubmitResult:
        submit = partial(submission.submit, limits=self._limits)
        with self._loop.watch.room_for(specs):
            result: SubmitResult = await self._loop.call(
                partial(submit, owner=owner, specs=specs, needs_approval=needs_approval)
            )
        # The same turn may have placed them already; what is answered is what was committed.
        fresh = [self._loop.state.tasks.get(task.id, task) for task in result.tasks]
        return SubmitResult(fresh, result.failed)

    async def kill(self, task_id: TaskId) -> None:
        await self._on_task(task_id, submission.kill)

    async def pause(self, task_id: TaskId) -> None:
        await self._on_task(task_id, submission.pause)

    async def resume(self, task_id: TaskId) -> None:
        await self._on_task(task_id, submission.resume)

    async def approve(self, task_id: TaskId, by: str) -> None:
        await self._on_task(task_id, partial(submission.approve, by=by))

    async def reject(self, task_id: TaskId, by: str, reason: str) -> None:
        await self._on_task(task_id, partial(submission.reject, by=by, reason=reason))

    async def _on_task(self, task_id: TaskId, change: Callable[[Turn, Task], None]) -> None:
        def handler(turn: Turn) -> bool:
            task = turn.state.tasks.get(task_id)
            if task is not None:
                change(turn, task)
            return task is not None

        if not await self._loop.call(handler):
            ended = await self.find(task_id)
            raise Conflict(f"task {task_id} has ended already ({ended.state.value})")

    async def find(self, task_id: TaskId) -> Task:
        """Return the committed record; raises NotFound. A task that can never run says why."""
        task = await self._store.read(partial(queries.find_task, task_id=task_id))
        if task is None:
            raise NotFound(f"there is no task {task_id}")
        if task.state is not TaskState.PENDING:
            return task
        return changed(task, error_message=never_fits(task.spec.demand, self._loop.state.table))

    async def find_attempt(self, task_id: TaskId, number: int) -> Attempt | None:
        """Return an attempt that is over; None where nothing was kept of it."""
        return await self._store.read(partial(queries.find_attempt, task_id=task_id, number=number))

    def live(self, task_id: TaskId) -> Task | None:
        """The record of a task that has not come to its end, from memory; None for any other."""
        return self._loop.state.tasks.get(task_id)

    async def select(self, wanted: TaskFilter) -> list[Task]:
        return await self._store.read(partial(queries.list_tasks, wanted=wanted))

    async def select_with_kept(
        self, wanted: TaskFilter, kept: Callable[[TaskMark], bytes | None]
    ) -> list[tuple[TaskMark, Task | bytes]]:
        """List tasks; `kept`, called in another thread, has what stands in place of one: see `task_lists`."""
        return await self._store.read(partial(task_lists.list_with_kept, wanted=wanted, kept=kept))

    async def resolve(self, ref: str, named: TaskType | None = None) -> TaskId:
        """Find a task by its id, an unambiguous ending of it (4 digits or more), or its newest name."""
        return await resolve_task(self._store, ref, named)

    async def wait_ended(self, task_id: TaskId, seconds: float) -> Task:
        """Return the record once the task has ended, or as it stands when the time is over."""
        with self.endings.watched(task_id) as event:
            task = await self.find(task_id)
            if task.state in ENDED or seconds <= 0:
                return task
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
            return await self.find(task_id)

    def pending_reasons(self, task: Task) -> list[tuple[str, str]]:
        """(node, why the task does not run there now), for one that waits, or whose order cannot be given."""
        table = self._loop.state.table
        if task.state is TaskState.ASSIGNING and task.assigned_node is not None:
            view = table.peek(task.assigned_node)
            return [(view.name, view.closed_reason)] if view is not None and view.closed_reason else []
        if task.state is not TaskState.PENDING:
            return []
        return explain(task.spec.demand, table)

    def progress_of(self, task: Task) -> str | None:
        """How far the image of a task that starts is on its way to its node, as the node said last."""
        node = self._loop.state.nodes.get(task.assigned_node or "")
        return node.progress.get(task.id) if node and task.state is TaskState.ASSIGNING else None

    async def history(self, task_id: TaskId) -> list[StoredEvent]:
        return await self._store.read(partial(queries.task_history, task_id=task_id))

    async def newest_event(self) -> int:
        """The number of the last event of any task.

        It grows with each commit and is never given again, so whoever knows the last one that he has seen can
        go on from there, over restarts of the host too.
        """
        return await self._store.read(queries.newest_event)

    async def events_after(self, number: int, limit: int) -> list[NumberedEvent]:
        """The events of all tasks after that number, oldest first, at most `limit` of them."""
        return await self._store.read(partial(queries.events_after, number=number, limit=limit))

    async def wanted_images(self) -> set[str]:
        """Registry images and environments that work asks for which runs, waits, or can be started again."""
        return await asyncio.to_thread(_images_of, tuple(self._loop.state.tasks.values()))

    def records_removed(self) -> None:
        """Have answers about ended tasks made anew: some of their records were removed from the store."""
        self._loop.renew()


def _images_of(tasks: Iterable[Task]) -> set[str]:
    found = {task.spec.registry_image or task.spec.container_name for task in tasks}
    return {name for name in found if name is not None}
