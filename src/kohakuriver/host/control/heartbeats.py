"""Heartbeats in, differences applied: the one place where the records follow what nodes hold."""

from kohakuriver.host.control.nodes import LiveNode
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ENDED
from kohakuriver.scheduling.reconcile import (
    Differences,
    ExecuteOrder,
    ReportedAttempt,
    apply_change,
    reconcile_node,
    silent_node,
)
from kohakuriver.wire.messages import AttemptState, Heartbeat, HeartbeatAnswer


def heartbeat(turn: Turn, hostname: str, beat: Heartbeat) -> HeartbeatAnswer:
    """Take in a heartbeat; one of an unknown boot, or not newer than the last, changes nothing."""
    node = turn.state.nodes[hostname]
    if node.registration is None or node.registration.boot_id != beat.boot_id:
        return HeartbeatAnswer(known=False)
    if beat.revision <= node.beat_revision:
        return HeartbeatAnswer(known=True)
    _take_figures(turn, node, beat)
    reported = [
        ReportedAttempt(parse_task_id(entry.task_id), entry.attempt, entry.status, entry.revision)
        for entry in beat.attempts
    ]
    holding = {task_id: turn.state.tasks[task_id] for task_id in turn.state.on_node.get(hostname, ())}
    named = {e.task_id: task for e in reported if (task := turn.state.tasks.get(e.task_id)) is not None}
    differences = reconcile_node(
        hostname, reported, beat.orders_seen, holding | named, _execute_orders(turn, hostname, holding)
    )
    _apply(turn, differences)
    node.ends_workloads = bool(differences.end_attempts)
    turn.state.refresh_status(hostname)
    return HeartbeatAnswer(
        known=True,
        end_attempts=[
            AttemptState(
                task_id=str(end.task_id), attempt=end.attempt, status=end.state, revision=end.revision
            )
            for end in differences.end_attempts
        ],
    )


def node_silent(turn: Turn, hostname: str) -> None:
    """A node said nothing for longer than its timeout; what it holds is lost until it speaks again."""
    node = turn.state.nodes[hostname]
    node.online = False
    turn.state.refresh_status(hostname)
    holding = {task_id: turn.state.tasks[task_id] for task_id in turn.state.on_node.get(hostname, ())}
    orders = _execute_orders(turn, hostname, holding)
    _apply(turn, silent_node(hostname, [holding[task_id] for task_id in sorted(holding)], orders))


def _take_figures(turn: Turn, node: LiveNode, beat: Heartbeat) -> None:
    node.beat_revision = beat.revision
    node.figures = beat
    node.history.extend(beat.history)
    node.last_beat = turn.monotonic
    node.last_heartbeat = turn.now
    node.online = True


def _execute_orders(turn: Turn, hostname: str, holding: dict[TaskId, Task]) -> dict[TaskId, ExecuteOrder]:
    """Execute orders of current attempts: those that wait, and those that this boot accepted."""
    orders = {
        task_id: ExecuteOrder(order_id, acknowledged=True)
        for task_id, order_id in turn.state.nodes[hostname].accepted.items()
        if task_id in holding
    }
    for order in turn.state.orders.values():
        task = holding.get(order.task_id)
        if task is not None and order.kind is OrderKind.EXECUTE and order.attempt == task.attempt:
            orders[task.id] = ExecuteOrder(order.id, acknowledged=False)
    return orders


def _apply(turn: Turn, differences: Differences) -> None:
    for change in differences.changes:
        task = turn.state.tasks[change.task_id]
        if change.state in ENDED or change.state is TaskState.PENDING:
            turn.end_orders_of(task.id)
        turn.replace_task(apply_change(task, change, turn.now), change.cause.value, change.message)
