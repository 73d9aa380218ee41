"""How a node leaves the cluster: drained of its work, opened again, or removed.

Rules: a drain only closes the node; what runs there ends by itself, or is ended to be moved if it may run
again. A removal takes the node's key, the join token that it used, its orders and its place in the ledger in
one turn, so that nothing it sends afterwards counts for anything and it does not come back by itself.
"""

from dataclasses import replace

from kohakuriver.host.control.nodes import enrolling
from kohakuriver.host.control.tasks.changes import apply_changes_of_tasks
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Conflict
from kohakuriver.models.events import EventKind
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import HOLDING
from kohakuriver.scheduling.reconcile import removed_node

_NAMED = 5
"""So many tasks are named in a sentence before it says how many more there are."""


def drain(turn: Turn, hostname: str, move: bool, by: str) -> list[Task]:
    """Close the node for new work; with `move`, end what may run again so that it runs elsewhere.

    Returns the tasks that are there still, those that are being moved included.
    """
    node = turn.known_node(hostname)
    if not node.row.draining:
        turn.put_node(node, replace(node.row, draining=True))
    held = tasks_held(turn, hostname)
    if move:
        for task in held:
            _move(turn, task, by)
    return tasks_held(turn, hostname)


def _move(turn: Turn, task: Task, by: str) -> None:
    """A task that is lost went back to the queue already if it may run again; a kill comes first."""
    movable = task.spec.retries and not task.kill_requested and not task.move_requested
    if movable and task.state is not TaskState.LOST:
        moving = changed(task, move_requested=True)
        turn.replace_task(moving, EventKind.MOVE_REQUESTED, f"{by} drains {task.assigned_node}")
        turn.order(moving, OrderKind.KILL)


def undrain(turn: Turn, hostname: str) -> None:
    """Open the node again. What is being moved away moves all the same."""
    node = turn.known_node(hostname)
    if node.row.draining:
        turn.put_node(node, replace(node.row, draining=False))


def remove(turn: Turn, hostname: str, force: bool) -> None:
    """Take the node out of the cluster; raises Conflict while it holds work, unless forced."""
    key = turn.known_node(hostname).row.public_key
    held = tasks_held(turn, hostname)
    if held and not force:
        raise Conflict(
            f"node {hostname} holds {_listed(held)}; drain it first, or remove it with --force, which gives "
            "up what runs there"
        )
    apply_changes_of_tasks(turn, removed_node(hostname, held))
    for token in [token for token in turn.state.join_tokens.values() if token.used_by_key == key]:
        enrolling.delete_join_token(turn, token.id)
    turn.remove_node(hostname)


def tasks_held(turn: Turn, hostname: str) -> list[Task]:
    """The tasks that hold a share of the node, oldest first."""
    tasks = [turn.state.tasks[task_id] for task_id in sorted(turn.state.on_node.get(hostname, ()))]
    return [task for task in tasks if task.state in HOLDING]


def _listed(tasks: list[Task]) -> str:
    names = ", ".join(str(task.id) for task in tasks[:_NAMED])
    more = f" and {len(tasks) - _NAMED} more" if len(tasks) > _NAMED else ""
    return f"task{'s' if len(tasks) > 1 else ''} {names}{more}"
