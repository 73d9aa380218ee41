"""What runners say about tasks: reports, and answers to orders.

A report counts only for the current attempt on the node that holds it, and only once: `revision` fences
repeats. Whatever else arrives is written into the task's history and otherwise ignored. An attempt that did
not end by itself (the system lost it, or ended it to move it) is followed by another while the task may run
again.
"""

from kohakuriver.host.control import restored
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.control.vps import runs
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import parse_task_id
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ALIVE, ENDED, ForbiddenTransition
from kohakuriver.wire.messages import OrderAnswer, TaskReport

_REPORTABLE = frozenset(
    {
        TaskState.RUNNING,
        TaskState.PAUSED,
        TaskState.COMPLETED,
        TaskState.FAILED,
        TaskState.KILLED,
        TaskState.KILLED_OOM,
        TaskState.STOPPED,
    }
)

_MOST_BOUNCES = 5
"""So often a task that nodes cannot begin goes back to the queue without using up a retry."""
"""Between these a node can go to and fro without end, so their lines in the history are bounded."""


def check_reports(reports: list[TaskReport]) -> None:
    """Raise InvalidInput for a report that no runner may make, before anything is applied."""
    for report in reports:
        parse_task_id(report.task_id)
        if report.status not in _REPORTABLE:
            raise InvalidInput(f"a runner cannot report the state {report.status.value}", field="status")


def apply_reports(turn: Turn, hostname: str, reports: list[TaskReport]) -> int:
    """Apply reports in order; returns how many are settled, which is all of them."""
    for report in reports:
        task = turn.state.tasks.get(parse_task_id(report.task_id))
        if task is not None:
            _apply(turn, hostname, task, report)
        else:
            restored.tell_of_lost_work(turn, hostname, report)
    return len(reports)


def _apply(turn: Turn, hostname: str, task: Task, report: TaskReport) -> None:
    task = restored.take_newer(turn, hostname, task, report.attempt)
    if task.assigned_node != hostname or task.attempt.number != report.attempt:
        told = f"{hostname} reported {report.status.value} for attempt {report.attempt}"
        _note_strange(turn, hostname, task, EventKind.STALE_REPORT, told)
        return
    if report.revision <= task.attempt.revision:
        return
    lines = len(turn.changes.events)
    try:
        _advance(turn, task, report)
    except ForbiddenTransition as error:
        _note_strange(turn, hostname, task, EventKind.IMPOSSIBLE_REPORT, error.step)
        return
    if not {task.state, report.status} <= ALIVE:
        return
    if not turn.known_node(hostname).told.take(turn.monotonic):
        del turn.changes.events[lines:]


def _note_strange(turn: Turn, hostname: str, task: Task, kind: EventKind, detail: str) -> None:
    """Each line stays in the store, and a node may say such things without end."""
    if turn.known_node(hostname).told.take(turn.monotonic):
        turn.note(task, kind, detail)


def _advance(turn: Turn, task: Task, report: TaskReport) -> None:
    """Make the step, by way of `running` where the report in between was overtaken."""
    if task.state is report.status:
        task = changed(task, attempt=_with_report(task.attempt, report))
        turn.replace_task(task, EventKind.REPORTED_AGAIN)
        runs.after_report(turn, task, report)
        return
    if _may_begin_elsewhere(turn, task, report):
        turn.end_orders_of(task.id)
        turn.state.bounced[task.id] = turn.state.bounced.get(task.id, 0) + 1
        task = _end_told(turn, task, report)
        turn.replace_task(task.back_to_queue(report.message), EventKind.NEVER_STARTED, report.message)
        return
    if _was_cut_short(task, report):
        _run_again(turn, task, report)
        return
    *between, last = task.steps_to(report.status)
    for state in between:
        task = turn.step(task.to(state))
    task = turn.step(_taken_in(turn, task, report), report.message)
    if last in ENDED:
        turn.end_orders_of(task.id)
        if task.assigned_node is not None:
            turn.known_node(task.assigned_node).just_ended[task.id] = task
    runs.after_report(turn, task, report)


def _taken_in(turn: Turn, task: Task, report: TaskReport) -> Task:
    """The record of the task after the step that is reported."""
    attempt = _with_report(task.attempt, report)
    if report.status in ENDED:
        return task.ended(report.status, report.completed_at or turn.now, report.message, attempt)
    return task.seen(report.status, None, attempt)


def _end_told(turn: Turn, task: Task, report: TaskReport) -> Task:
    """Keep the end of an attempt that is not the task's own."""
    attempt = _with_report(task.attempt, report)
    ended = attempt.ended(report.status, report.completed_at or turn.now, report.message)
    task = changed(task, attempt=ended)
    turn.put_task(task)
    return task


def _with_report(attempt: Attempt, report: TaskReport) -> Attempt:
    """What is known of an attempt once a report of it was taken in; what it does not tell stays as it was."""
    return changed(
        attempt,
        revision=report.revision,
        started_at=report.started_at or attempt.started_at,
        exit_code=attempt.exit_code if report.exit_code is None else report.exit_code,
        stdout_bytes=attempt.stdout_bytes if report.stdout_bytes is None else report.stdout_bytes,
        stderr_bytes=attempt.stderr_bytes if report.stderr_bytes is None else report.stderr_bytes,
        image_digest=report.image_digest or attempt.image_digest,
    )


def _may_begin_elsewhere(turn: Turn, task: Task, report: TaskReport) -> bool:
    """Whether the node could not begin it by its own doing. What fails everywhere comes to an end as well."""
    if report.status is not TaskState.FAILED or not report.never_began or task.kill_requested:
        return False
    return task.state is TaskState.ASSIGNING and turn.state.bounced.get(task.id, 0) < _MOST_BOUNCES


def _was_cut_short(task: Task, report: TaskReport) -> bool:
    """Whether this end is none of the command's own and another attempt follows."""
    if not task.may_run_again:
        return False
    if report.status is TaskState.KILLED:
        return task.move_requested
    return report.status is TaskState.FAILED and report.lost_to_system


def _run_again(turn: Turn, task: Task, report: TaskReport) -> None:
    detail = report.message or "the attempt did not end by itself"
    turn.end_orders_of(task.id)
    task = _end_told(turn, task, report)
    if task.state not in (TaskState.ASSIGNING, TaskState.LOST):
        task = turn.step(task.to(TaskState.LOST), detail)
    kind = EventKind.MOVED if task.move_requested else EventKind.RETRIED
    turn.replace_task(task.run_again(detail), kind, detail)


def orders_answered(turn: Turn, hostname: str, answers: list[OrderAnswer]) -> None:
    """Strike off the orders that a runner took; an attempt that it refuses to run has failed.

    An answer to another node's order counts for nothing.
    """
    for answer in answers:
        order = turn.state.orders.get(answer.order_id)
        if order is None or order.node != hostname:
            continue
        turn.end_order(order.id)
        if answer.accepted and order.kind is OrderKind.EXECUTE:
            turn.known_node(hostname).accepted[order.task_id] = order.id
        task = turn.state.tasks.get(order.task_id)
        if answer.accepted or task is None or task.attempt.number != order.attempt:
            continue
        detail = answer.detail or "the runner refused the order"
        if order.kind is OrderKind.EXECUTE and task.state is TaskState.ASSIGNING:
            turn.step(task.ended(TaskState.FAILED, turn.now, detail), detail)
            turn.end_orders_of(task.id)
        else:
            turn.note(task, EventKind.of_refusal(order.kind), detail)
