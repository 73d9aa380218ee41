"""What the rules of the scheduler found out about tasks, written into their records."""

from collections.abc import Iterable

from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import TaskState
from kohakuriver.models.transitions import ENDED
from kohakuriver.scheduling.reconcile import Change, apply_change


def apply_changes_of_tasks(turn: Turn, changes: Iterable[Change]) -> None:
    """Take over what reconciliation found; orders to a task that has ended or waits anew are struck off."""
    for change in changes:
        task = turn.state.tasks[change.task_id]
        if change.state in ENDED or change.state is TaskState.PENDING:
            turn.end_orders_of(task.id)
        turn.replace_task(apply_change(task, change, turn.now), change.cause, change.message)
