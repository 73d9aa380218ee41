"""Tasks that wait for resources, in their order: higher priority first, then by submission (ids only grow).

Tasks with the same demand form one *shape*: where the first of them finds no room, none of them does. A pass
therefore looks at shapes, and a queue of 100,000 equal tasks costs what one task costs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from heapq import heapify, heappop, heappush

from kohakuriver.models.ids import TaskId
from kohakuriver.models.resources import Demand

Rank = tuple[int, TaskId]
"""Place in the queue, smaller first: (-priority, task id)."""


@dataclass(frozen=True, slots=True)
class QueuedTask:
    """A pending task. `queued_at` is when it began to wait; a task that is put back keeps its first time."""

    task_id: TaskId
    demand: Demand
    queued_at: datetime
    priority: int = 0

    @property
    def rank(self) -> Rank:
        return -self.priority, self.task_id


class Shape:
    """The waiting tasks of one demand. For `scheduling.placement`; others use `TaskQueue`."""

    def __init__(self, demand: Demand) -> None:
        self.demand = demand
        self.tasks: dict[TaskId, QueuedTask] = {}
        self.checked_table: object = None
        self.checked_version = -1
        """No node of `checked_table` had room for the demand at this version of it."""
        self.too_large_for: tuple[object, int] | None = None
        """No open node of that table, at that version of its nodes, could hold the demand were it empty."""
        self.reserved_node: str | None = None
        self.reserving_since: datetime | None = None
        self.rests_until: datetime | None = None
        """Before this time it reserves nothing, since for long its reservation did not come true."""
        self._heap: list[Rank] = []

    def add(self, task: QueuedTask) -> None:
        self.tasks[task.task_id] = task
        heappush(self._heap, task.rank)
        if len(self._heap) > 2 * len(self.tasks) + 64:
            self._heap = [waiting.rank for waiting in self.tasks.values()]
            heapify(self._heap)

    def head(self) -> QueuedTask | None:
        """The task that is next in order, after those that are gone were swept away."""
        while self._heap:
            rank = self._heap[0]
            task = self.tasks.get(rank[1])
            if task is not None and task.rank == rank:
                return task
            heappop(self._heap)
        return None

    def set_aside(self) -> Rank:
        """Take the head out of the order for the rest of a pass; `put_back` returns it."""
        rank = heappop(self._heap)
        while self._heap and self._heap[0] == rank:
            heappop(self._heap)
        return rank

    def put_back(self, rank: Rank) -> None:
        heappush(self._heap, rank)


class TaskQueue:
    """All pending tasks; adding and removing cost O(log n). Iteration gives them in order."""

    def __init__(self) -> None:
        self._shapes: dict[Demand, Shape] = {}
        self._shape_of: dict[TaskId, Shape] = {}

    def __len__(self) -> int:
        return len(self._shape_of)

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._shape_of

    def __iter__(self) -> Iterator[QueuedTask]:
        tasks = [task for shape in self._shapes.values() for task in shape.tasks.values()]
        return iter(sorted(tasks, key=lambda task: task.rank))

    def add(self, task: QueuedTask) -> None:
        """Put a task in its place in the order; one that waits already is replaced."""
        self.remove(task.task_id)
        shape = self._shapes.get(task.demand)
        if shape is None:
            shape = self._shapes[task.demand] = Shape(task.demand)
        shape.add(task)
        self._shape_of[task.task_id] = shape

    def remove(self, task_id: TaskId) -> None:
        """Take a task out (placed, killed); one that does not wait is not an error."""
        shape = self._shape_of.pop(task_id, None)
        if shape is None:
            return
        del shape.tasks[task_id]
        if not shape.tasks:
            del self._shapes[shape.demand]

    def get(self, task_id: TaskId) -> QueuedTask | None:
        shape = self._shape_of.get(task_id)
        return None if shape is None else shape.tasks[task_id]

    def shapes(self) -> list[Shape]:
        return list(self._shapes.values())
