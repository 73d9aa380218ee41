"""Every difference between what a runner says it holds and what the host has on record, in one place.

What is relied on:
- Orders to one node are delivered in ascending order of their numbers, and `orders_seen` of a heartbeat is
  the highest that its runner had taken in. So a heartbeat says nothing about an attempt whose execute order
  has a higher number, nor about one that was not acknowledged: its order is still being delivered.
- A runner lists a workload until the host has committed its last report. So one that is missing, and should
  be there, is gone for good.
- A heartbeat may be older than reports that were applied since; what has an older revision is not judged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from kohakuriver.models.enums import TaskState
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ALIVE, ENDED, HOLDING, QUEUED


@dataclass(frozen=True, slots=True)
class ReportedAttempt:
    """One workload of a heartbeat's list."""

    task_id: TaskId
    attempt: int
    state: TaskState
    revision: int = 0


@dataclass(frozen=True, slots=True)
class ExecuteOrder:
    """The order that starts a task's current attempt, and whether this boot of the runner accepted it."""

    order_id: int
    acknowledged: bool


class Cause(Enum):
    """Why a workload must not be on its node."""

    UNKNOWN_TASK = "unknown_task"
    OLD_ATTEMPT = "old_attempt"
    OTHER_NODE = "other_node"
    TASK_ENDED = "task_ended"


@dataclass(frozen=True, slots=True)
class AttemptToEnd:
    """A workload on the node that must not be there."""

    task_id: TaskId
    attempt: int
    state: TaskState
    revision: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Change:
    """A step that the host's record of a task must take. `steps` passes through the states of the table."""

    task_id: TaskId
    attempt: int
    steps: tuple[TaskState, ...]
    cause: EventKind
    message: str | None

    @property
    def state(self) -> TaskState:
        """The state that the task ends up in."""
        return self.steps[-1]


@dataclass(frozen=True, slots=True)
class Differences:
    """What to end on the node and what to change on record. While `end_attempts` is not empty, more runs on
    the node than the ledger knows: place nothing there until a heartbeat comes without."""

    end_attempts: tuple[AttemptToEnd, ...] = ()
    changes: tuple[Change, ...] = ()


def reconcile_node(
    node: str,
    reported: Iterable[ReportedAttempt],
    orders_seen: int,
    tasks: Mapping[TaskId, Task],
    orders: Mapping[TaskId, ExecuteOrder],
) -> Differences:
    """Compare one heartbeat, not older than the last, of the node's registered boot with the records.

    `tasks`: all tasks that hold a share of the node, and every reported one that the store has (ended ones
    too). `orders`: by task, where the execute order of its current attempt was not yet accepted, or was by
    this boot of the runner; a task that is missing there was accepted by an earlier boot.
    """
    listed = list(reported)
    ends = [end for entry in listed if (end := _judge_reported(node, entry, tasks.get(entry.task_id)))]
    changes = [change for entry in listed if (change := _found_again(node, entry, tasks.get(entry.task_id)))]
    present = {(entry.task_id, entry.attempt) for entry in listed}
    for task in tasks.values():
        if task.assigned_node != node or task.state not in HOLDING:
            continue
        if (task.id, task.attempt.number) not in present and _seen(orders.get(task.id), orders_seen):
            changes += _missing(task, node)
    return Differences(tuple(ends), tuple(changes))


def silent_node(node: str, tasks: Iterable[Task], orders: Mapping[TaskId, ExecuteOrder]) -> Differences:
    """Say what becomes of the tasks of a node that was silent for too long; `orders` as in `reconcile_node`.

    A task whose order was never accepted goes back to the queue: should the order have arrived after all, its
    attempt is old by then, and is ended when the node comes back. So is one that is lost and to be retried.
    """
    changes = []
    for task in tasks:
        if task.assigned_node != node or task.state not in HOLDING or task.state is TaskState.LOST:
            continue
        order = orders.get(task.id)
        if task.state is TaskState.ASSIGNING and order is not None and not order.acknowledged:
            changes.append(not_started(task, f"node {node} cannot be reached"))
            continue
        message = f"node {node} is silent; what became of the task is known when it comes back"
        changes.append(_change(task, EventKind.NODE_SILENT, message, TaskState.LOST))
        if task.may_run_again:
            changes.append(_again(task, f"node {node} is silent"))
    return Differences(changes=tuple(changes))


def removed_node(node: str, tasks: Iterable[Task]) -> tuple[Change, ...]:
    """Say what becomes of the tasks of a node that is taken out of the cluster while it holds them."""
    changes = []
    for task in tasks:
        if task.assigned_node != node or task.state not in HOLDING:
            continue
        message = f"node {node} was removed from the cluster while it held the task"
        if task.state is not TaskState.LOST:
            changes.append(_change(task, EventKind.NODE_REMOVED, message, TaskState.LOST))
        if task.may_run_again:
            changes.append(_again(task, f"node {node} was removed"))
        else:
            end = TaskState.KILLED if task.kill_requested else TaskState.FAILED
            changes.append(_change(task, EventKind.NODE_REMOVED, message, end))
    return tuple(changes)


def apply_change(task: Task, change: Change, now: datetime) -> Task:
    """Return the record after the change; raises ValueError if the task has another attempt by now."""
    if (task.id, task.attempt.number) != (change.task_id, change.attempt):
        raise ValueError(f"the change is for attempt {change.attempt} of task {change.task_id}")
    if change.cause in (EventKind.RETRIED, EventKind.MOVED):
        return task.run_again(change.message)
    for state in change.steps[:-1]:
        task = task.to(state)
    if change.state is TaskState.PENDING:
        return task.back_to_queue(change.message)
    if change.state in ENDED:
        return task.ended(change.state, now, change.message)
    return task.seen(change.state, change.message)


def _judge_reported(node: str, entry: ReportedAttempt, task: Task | None) -> AttemptToEnd | None:
    """An attempt that has ended needs no ending; the host takes its report and the runner forgets it."""
    if entry.state in ENDED:
        return None
    cause = _fault_of(node, entry, task)
    if cause is None:
        return None
    return AttemptToEnd(entry.task_id, entry.attempt, entry.state, entry.revision, cause)


def _fault_of(node: str, entry: ReportedAttempt, task: Task | None) -> Cause | None:
    if task is None:
        return Cause.UNKNOWN_TASK
    if task.attempt.number != entry.attempt or task.state in QUEUED:
        return Cause.OLD_ATTEMPT
    if task.assigned_node != node:
        return Cause.OTHER_NODE
    if task.state not in HOLDING and entry.revision >= task.attempt.revision:
        return Cause.TASK_ENDED
    return None


def _found_again(node: str, entry: ReportedAttempt, task: Task | None) -> Change | None:
    if task is None or task.state is not TaskState.LOST or entry.state not in ALIVE:
        return None
    attempt = task.attempt
    if (attempt.node, attempt.number) != (node, entry.attempt) or entry.revision < attempt.revision:
        return None
    return _change(task, EventKind.FOUND_AGAIN, None, entry.state)


def _seen(order: ExecuteOrder | None, orders_seen: int) -> bool:
    return order is None or (order.acknowledged and order.order_id <= orders_seen)


def _missing(task: Task, node: str) -> list[Change]:
    if task.state is TaskState.ASSIGNING:
        return [not_started(task, f"node {node} lost the order before the task was started")]
    if task.kill_requested:
        return [_change(task, EventKind.VANISHED, None, TaskState.KILLED)]
    message = f"the task vanished from node {node}: its container is gone and how it ended is not known"
    if not task.may_run_again:
        return [_change(task, EventKind.VANISHED, message, *task.steps_to(TaskState.FAILED))]
    again = _again(task, f"the task vanished from node {node}")
    if task.state is TaskState.LOST:
        return [again]
    return [_change(task, EventKind.VANISHED, message, TaskState.LOST), again]


def _again(task: Task, message: str) -> Change:
    """A lost attempt is followed by another; what its node still runs of it is old from now on."""
    cause = EventKind.MOVED if task.move_requested else EventKind.RETRIED
    return _change(task, cause, message, TaskState.PENDING)


def not_started(task: Task, message: str) -> Change:
    """The change for what its node never began. A task that a kill waits for does not return to the queue."""
    if task.kill_requested:
        return _change(task, EventKind.NEVER_STARTED, None, TaskState.KILLED)
    return _change(task, EventKind.NEVER_STARTED, message, TaskState.PENDING)


def _change(task: Task, cause: EventKind, message: str | None, *steps: TaskState) -> Change:
    return Change(task.id, task.attempt.number, steps, cause, message)
