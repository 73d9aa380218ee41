"""What users ask of tasks: submit, kill, pause, resume, approve, reject."""

from dataclasses import dataclass
from typing import NoReturn

from kohakuriver.host.control.tasks.orders import was_never_taken
from kohakuriver.host.control.tasks.waiting_work import WaitingLimits
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Conflict, InvalidInput, NotFound
from kohakuriver.models.events import EventKind
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from kohakuriver.scheduling.explain import refusal


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The tasks that were accepted, and (target, reason) for each target that was refused."""

    tasks: list[Task]
    failed: list[tuple[str, str]]


def submit(
    turn: Turn, owner: str, specs: list[TaskSpec], needs_approval: bool, limits: WaitingLimits
) -> SubmitResult:
    """Accept one task per spec; raises NotFound or InvalidInput if none of them can be accepted.

    Raises QuotaExceeded for more than the owner may have waiting.
    """
    accepted: list[TaskSpec] = []
    failed: list[tuple[str, str]] = []
    for spec in specs:
        reason = refusal(spec.demand, turn.state.table)
        if reason is None:
            accepted.append(spec)
        else:
            failed.append((str(spec.target), reason))
    if not accepted:
        _refuse_all(turn, specs, failed)
    turn.state.waiting.check(owner, accepted, limits, turn.now, trusted=not needs_approval)
    batch_id = turn.new_id() if len(specs) > 1 else None
    state = TaskState.PENDING_APPROVAL if needs_approval else TaskState.PENDING
    tasks = [Task(turn.new_id(), spec, state, owner, turn.now, batch_id=batch_id) for spec in accepted]
    for task in tasks:
        turn.add_task(task)
    return SubmitResult(tasks, failed)


def _refuse_all(turn: Turn, specs: list[TaskSpec], failed: list[tuple[str, str]]) -> NoReturn:
    sentence = "; ".join(dict.fromkeys(reason for _, reason in failed))
    known = [spec.target.hostname in turn.state.nodes for spec in specs if spec.target]
    if not any(known):
        raise NotFound(sentence)
    raise InvalidInput(sentence, field="targets")


def kill(turn: Turn, task: Task) -> None:
    """End a task: at once where nothing is known to run, else by an order that stays until it is answered."""
    waits = task.state in (TaskState.PENDING, TaskState.PENDING_APPROVAL, TaskState.LOST)
    if waits or was_never_taken(turn, task):
        turn.end_orders_of(task.id)
        turn.state.waiting.given_up.add(task, turn.now)
        turn.step(task.ended(TaskState.KILLED, turn.now, task.error_message))
        return
    if task.state in ENDED:
        raise Conflict(f"task {task.id} is {task.state.value}; there is nothing to kill")
    if not task.kill_requested:
        asked = turn.replace_task(changed(task, kill_requested=True), EventKind.KILL_REQUESTED)
        turn.order(asked, OrderKind.KILL)


def pause(turn: Turn, task: Task) -> None:
    _freeze(turn, task, TaskState.RUNNING, OrderKind.PAUSE, EventKind.PAUSE_REQUESTED)


def resume(turn: Turn, task: Task) -> None:
    _freeze(turn, task, TaskState.PAUSED, OrderKind.RESUME, EventKind.RESUME_REQUESTED)


def _freeze(turn: Turn, task: Task, wanted: TaskState, kind: OrderKind, told: EventKind) -> None:
    if task.state is not wanted:
        raise Conflict(
            f"task {task.id} is {task.state.value}; only a {wanted.value} task can be told to {kind.value}"
        )
    turn.note(task, told)
    turn.order(task, kind)


def approve(turn: Turn, task: Task, by: str) -> None:
    """Let a task into the queue that waits for an operator."""
    _check_waits(task)
    turn.step(task.approved(by), f"approved by {by}")


def reject(turn: Turn, task: Task, by: str, reason: str) -> None:
    _check_waits(task)
    turn.state.waiting.given_up.add(task, turn.now)
    said = f"rejected by {by}"
    turn.step(task.rejected(by, turn.now, reason or said), said)


def _check_waits(task: Task) -> None:
    if task.state is not TaskState.PENDING_APPROVAL:
        raise Conflict(f"task {task.id} is {task.state.value}; it does not wait for approval")
