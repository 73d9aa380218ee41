"""Heartbeats in, differences applied: the one place where the records follow what nodes hold."""

import msgspec

from kohakuriver.host.control import restored
from kohakuriver.host.control.nodes import orphans, reach
from kohakuriver.host.control.nodes.node import LiveNode
from kohakuriver.host.control.tasks.changes import apply_changes_of_tasks
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.control.vps import runs
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ENDED, HOLDING
from kohakuriver.scheduling.reconcile import (
    AttemptToEnd,
    ExecuteOrder,
    ReportedAttempt,
    reconcile_node,
    silent_node,
)
from kohakuriver.wire.messages import AttemptState, Heartbeat, HeartbeatAnswer, NodeFigures

MOST_ENDS = 1000
"""Workloads that one answer has ended; the next heartbeat names the rest again."""
_KEPT_GPUS = 64
"""So many GPUs are kept of each sample of a node's history."""


def heartbeat(turn: Turn, hostname: str, beat: Heartbeat, reported: list[ReportedAttempt]) -> HeartbeatAnswer:
    """Take in a heartbeat; one of an unknown boot or session, or not newer than the last, changes nothing.

    While the store cannot be written it is a sign of life only; what it says about work is judged afterwards.
    """
    node = turn.known_node(hostname)
    registration = node.registration
    if registration is None or (registration.boot_id, node.session) != (beat.boot_id, beat.session):
        return HeartbeatAnswer(known=False)
    if beat.revision <= node.beat_revision:
        return HeartbeatAnswer(known=True)
    _take_figures(turn, node, beat)
    node.progress = _progress_of(turn, hostname, beat)
    if turn.read_only:
        turn.state.refresh_status(hostname)
        return HeartbeatAnswer(known=True)
    restored.hear(turn, hostname, reported, complete=beat.complete)
    left = orphans.hear(turn, node, beat)
    kills = reach.hear_what_arrived(turn, hostname, beat.attempts)
    holding = {task_id: turn.state.tasks[task_id] for task_id in turn.state.on_node.get(hostname, ())}
    tasks = turn.state.tasks
    named = {e.task_id: t for e in reported if (t := tasks.get(e.task_id) or node.just_ended.get(e.task_id))}
    # Nothing is missing from a list that is not complete yet, nor what the runner is about to take over.
    expected = {task_id: task for task_id, task in holding.items() if task_id not in left.awaited}
    judged = expected | named if beat.complete else named
    differences = reconcile_node(
        hostname, reported, beat.orders_seen, judged, _execute_orders(turn, hostname, holding)
    )
    differences = restored.spare_lost_work(turn, hostname, differences)
    apply_changes_of_tasks(turn, differences.changes)
    _order_strays_again(turn, hostname, beat)
    node.ends_workloads = bool(differences.end_attempts)
    # An entry is of use until a heartbeat comes that was made after the end.
    running = {entry.task_id for entry in reported if entry.state not in ENDED}
    node.accepted = {task_id: order for task_id, order in node.accepted.items() if task_id in holding}
    node.just_ended = {task_id: task for task_id, task in node.just_ended.items() if task_id in running}
    turn.state.refresh_status(hostname)
    runs.begin_waiting(turn, hostname)
    unwanted = [_told(end) for end in differences.end_attempts]
    ends = (kills + unwanted)[:MOST_ENDS]
    return HeartbeatAnswer(known=True, end_attempts=ends, take_over=left.take_over)


def _told(end: AttemptToEnd) -> AttemptState:
    return AttemptState(
        task_id=str(end.task_id), attempt=end.attempt, status=end.state, revision=end.revision
    )


def _progress_of(turn: Turn, hostname: str, beat: Heartbeat) -> dict[TaskId, str]:
    """What is said of tasks that start there now; a node has nothing to say of others."""
    told = {}
    for entry in beat.attempts:
        task = turn.state.tasks.get(parse_task_id(entry.task_id)) if entry.progress else None
        if task is None or (task.assigned_node, task.attempt.number) != (hostname, entry.attempt):
            continue
        if entry.progress and task.state is TaskState.ASSIGNING:
            told[task.id] = entry.progress
    return told


def reported_attempts(beat: Heartbeat) -> list[ReportedAttempt]:
    """What a heartbeat lists; raises InvalidInput for what is no task."""
    orphans.check_orphans(beat)
    return [
        ReportedAttempt(parse_task_id(entry.task_id), entry.attempt, entry.status, entry.revision)
        for entry in beat.attempts
    ]


def _order_strays_again(turn: Turn, hostname: str, beat: Heartbeat) -> None:
    """Have a runner that lost its journal take up again what it runs of current attempts.

    The order is the one that began the attempt; it finds the workload in the engine and starts nothing. What
    the runner reports of it is numbered again.
    """
    for entry in beat.attempts:
        task = turn.state.tasks.get(parse_task_id(entry.task_id)) if entry.stray else None
        if task is None or (task.assigned_node, task.attempt.number) != (hostname, entry.attempt):
            continue
        if task.state not in HOLDING or turn.state.orders.of_task(task.id):
            continue
        if not turn.known_node(hostname).told.take(turn.monotonic):
            return  # the next heartbeats name it again
        again = changed(task, attempt=changed(task.attempt, revision=0))
        task = turn.replace_task(again, EventKind.TAKEN_UP_AGAIN, f"{hostname} lost its record of the task")
        turn.order(task, OrderKind.EXECUTE)
        if task.kill_requested:
            turn.order(task, OrderKind.KILL)


def node_silent(turn: Turn, hostname: str) -> None:
    """A node said nothing for longer than its timeout; what it holds is lost until it speaks again."""
    node = turn.known_node(hostname)
    node.online = False
    turn.state.refresh_status(hostname)
    holding = {task_id: turn.state.tasks[task_id] for task_id in turn.state.on_node.get(hostname, ())}
    orders = _execute_orders(turn, hostname, holding)
    silent = silent_node(hostname, [holding[task_id] for task_id in sorted(holding)], orders)
    apply_changes_of_tasks(turn, silent.changes)


def _take_figures(turn: Turn, node: LiveNode, beat: Heartbeat) -> None:
    node.beat_revision = beat.revision
    # What is kept until the next one comes is what people are shown.
    node.figures = msgspec.structs.replace(
        beat, attempts=[], running_tasks=[], killed_tasks=[], history=[], leftovers=[]
    )
    node.history.extend(_lean(sample) for sample in beat.history)
    node.last_beat = turn.monotonic
    node.last_heartbeat = turn.now
    node.online = True


def _lean(sample: NodeFigures) -> NodeFigures:
    if len(sample.gpu_info) <= _KEPT_GPUS:
        return sample
    return msgspec.structs.replace(sample, gpu_info=sample.gpu_info[:_KEPT_GPUS])


def _execute_orders(turn: Turn, hostname: str, holding: dict[TaskId, Task]) -> dict[TaskId, ExecuteOrder]:
    """Execute orders of current attempts: those that wait, and those that this boot accepted."""
    orders = {
        task_id: ExecuteOrder(order_id, acknowledged=True)
        for task_id, order_id in turn.state.nodes[hostname].accepted.items()
        if task_id in holding
    }
    for order in turn.state.orders.of_node(hostname):
        task = holding.get(order.task_id)
        if task is not None and order.kind is OrderKind.EXECUTE and order.attempt == task.attempt.number:
            orders[task.id] = ExecuteOrder(order.id, acknowledged=False)
    return orders
