"""A host whose state was restored from a backup, while its nodes went on: what it makes of what they tell.

Rules: no id, order or attempt number is given out twice, whatever was given out since the backup. What a task
of the backup has done since is taken from the node that reports it; what nobody reports is not done again
unless an operator says so. Work that was submitted after the backup is unknown here and is left alone.
`docs/design/0008-store-and-backup.md` has the cases.
"""

from dataclasses import replace

import msgspec
import structlog

from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store.restore_mark import META_KEY, RestoreMark
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import EPOCH_MS, parse_task_id
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ALIVE, QUEUED
from kohakuriver.scheduling.reconcile import AttemptToEnd, Cause, Differences, ReportedAttempt
from kohakuriver.wire.messages import TaskReport

log = structlog.get_logger()


def settle(turn: Turn) -> None:
    """See to the queue and the orders of the backup, once, before anything else happens.

    What waited may have run since, and may be running: it waits for an operator. Orders are not sent again,
    but for kills, which do no harm. Join tokens may have been used since, so they end.
    """
    mark = turn.state.restored
    if mark is None or mark.settled:
        return
    for order in [order for order in turn.state.orders if order.kind is not OrderKind.KILL]:
        turn.end_order(order.id)
    for task in list(turn.state.tasks.values()):
        if task.state is TaskState.PENDING:
            _hold(turn, task, mark)
        else:
            turn.note(task, EventKind.RESTORED, f"from the backup of {mark.backup_made_at}")
    turn.changes.ended_join_tokens.extend(turn.state.join_tokens)
    turn.state.join_tokens.clear()
    _put_mark(turn, msgspec.structs.replace(mark, settled=True))
    log.warning("state_restored", backup_made_at=mark.backup_made_at, live_tasks=len(turn.state.tasks))


def hear(turn: Turn, hostname: str, reported: list[ReportedAttempt], *, complete: bool) -> None:
    """Learn from the first heartbeats of a node since the restore what became of the backup's tasks there.

    What is missing from a list is gone only once the list is complete.
    """
    mark = turn.state.restored
    if mark is None or hostname in mark.heard:
        return
    for entry in reported:
        task = turn.state.tasks.get(entry.task_id)
        if task is not None and mark.is_of_backup(task.id):
            _follow(turn, hostname, task, entry)
    if not complete:
        return
    present = {(entry.task_id, entry.attempt) for entry in reported}
    for task in [turn.state.tasks[task_id] for task_id in turn.state.on_node.get(hostname, ())]:
        begun_before = mark.is_of_backup(task.id) and task.attempt.number <= mark.attempt_floor
        if begun_before and (task.id, task.attempt.number) not in present:
            _gone(turn, task, mark)
    _put_mark(turn, msgspec.structs.replace(mark, heard=(*mark.heard, hostname)))


def take_newer(turn: Turn, hostname: str, task: Task, attempt: int) -> Task:
    """Return the task as it is to be compared with a report: adopted, if the report is of a newer attempt.

    Reports may come before the node's first heartbeat; after that, every attempt of the backup is known.
    """
    mark = turn.state.restored
    if mark is None or hostname in mark.heard or not mark.is_of_backup(task.id):
        return task
    if attempt <= task.attempt.number or not _can_have_begun(turn, attempt):
        return task
    return _adopt(turn, hostname, task, ReportedAttempt(task.id, attempt, TaskState.ASSIGNING))


def spare_lost_work(turn: Turn, hostname: str, differences: Differences) -> Differences:
    """Leave alone what was submitted after the backup; its node takes nothing new until that is over."""
    mark = turn.state.restored
    spared = [end for end in differences.end_attempts if mark and _is_lost_work(end, mark)]
    node = turn.state.nodes[hostname]
    if len(spared) != node.unknown_workloads:
        ids = [str(end.task_id) for end in spared]
        log.warning("work_lost_by_restore", node=hostname, still_running=len(ids), task_ids=ids[:20])
    node.unknown_workloads = len(spared)
    return replace(
        differences, end_attempts=tuple(end for end in differences.end_attempts if end not in spared)
    )


def tell_of_lost_work(turn: Turn, hostname: str, report: TaskReport) -> None:
    """Leave in the log what is known of a task whose record a restore lost; its report has no other place."""
    mark = turn.state.restored
    if mark is not None and mark.is_lost(parse_task_id(report.task_id)):
        log.warning(
            "report_of_lost_task",
            node=hostname,
            task_id=str(report.task_id),
            attempt=report.attempt,
            state=report.status.value,
            exit_code=report.exit_code,
        )


def _is_lost_work(end: AttemptToEnd, mark: RestoreMark) -> bool:
    return end.cause is Cause.UNKNOWN_TASK and mark.is_lost(end.task_id)


def _follow(turn: Turn, hostname: str, task: Task, entry: ReportedAttempt) -> None:
    went_on = (
        entry.attempt == task.attempt.number
        and task.assigned_node == hostname
        and task.state in (TaskState.ASSIGNING, *ALIVE)
        and entry.state in ALIVE
        and entry.state is not task.state
    )
    if went_on or (entry.attempt > task.attempt.number and _can_have_begun(turn, entry.attempt)):
        _adopt(turn, hostname, task, entry)


def _can_have_begun(turn: Turn, attempt: int) -> bool:
    """No task is tried once a second, and a restore numbers attempts by seconds; an hour is for clocks."""
    return attempt <= int(turn.now.timestamp()) - EPOCH_MS // 1000 + 3600


def _adopt(turn: Turn, hostname: str, task: Task, entry: ReportedAttempt) -> Task:
    """Take over what a node tells. The steps in between were lost with their records, so this is no step of
    the table: the record is replaced."""
    turn.end_orders_of(task.id)
    alive = entry.state in ALIVE
    same = entry.attempt == task.attempt.number
    attempt = task.attempt if same else turn.next_attempt(task, hostname, entry.attempt)
    # Reports of this attempt that wait on the node count, whatever the backup had of them.
    attempt = changed(
        attempt, node=hostname, revision=0, started_at=attempt.started_at or (turn.now if alive else None)
    )
    adopted = turn.replace_task(
        changed(
            task,
            state=entry.state if alive else TaskState.ASSIGNING,
            attempt=attempt,
            error_message=None,
            completed_at=None,
            move_requested=False,
        ),
        EventKind.ADOPTED,
        f"{hostname} holds attempt {entry.attempt}, begun after the backup",
    )
    if adopted.kill_requested:
        turn.order(adopted, OrderKind.KILL)
    return adopted


def _gone(turn: Turn, task: Task, mark: RestoreMark) -> None:
    """The node does not hold what the backup has on it: it ended in between, and its report is lost."""
    turn.end_orders_of(task.id)
    if task.kill_requested:
        turn.step(task.ended(TaskState.KILLED, turn.now, task.error_message), "gone since the backup")
        return
    if task.state is TaskState.ASSIGNING:
        _hold(turn, task, mark)
        return
    message = (
        f"the task ended after the backup of {mark.backup_made_at} that this host was restored from; "
        "how it ended is not known, its output is kept"
    )
    *between, last = task.steps_to(TaskState.FAILED)
    for state in between:
        task = turn.step(task.to(state))
    turn.step(task.ended(last, turn.now, message), message)


def _hold(turn: Turn, task: Task, mark: RestoreMark) -> None:
    """Have a task wait for an operator. No step of the table leads back there: the restore is one."""
    message = (
        f"this host was restored from the backup of {mark.backup_made_at}, and the task may have run since; "
        "approve it to have it run (again)"
    )
    waiting = TaskState.PENDING_APPROVAL
    if task.state not in QUEUED:
        task = task.back_to_queue(message)
    turn.replace_task(changed(task, state=waiting, error_message=message), EventKind.RESTORED, message)


def _put_mark(turn: Turn, mark: RestoreMark) -> None:
    turn.state.restored = mark
    turn.changes.meta[META_KEY] = mark.encode()
