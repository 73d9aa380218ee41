"""Whether orders get through to a node, and what becomes of those that do not.

Rules: a node that registers gets no work before this host has called it and had its answer; one that cannot
be called gets none either, and says so. What such a node lists in a heartbeat has arrived there, whatever
became of the answer. What it was never heard to take goes back to the queue after a while, its attempt being
the fence: should the order have arrived after all, the node is told to end what came of it.
"""

from collections.abc import Iterable

from kohakuriver.host.control.nodes.node import REACH
from kohakuriver.host.control.tasks.changes import apply_changes_of_tasks
from kohakuriver.host.control.tasks.orders import was_never_taken
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import OrderKind
from kohakuriver.models.transitions import ENDED
from kohakuriver.scheduling.reconcile import not_started
from kohakuriver.wire.messages import AttemptState

_MOST_KILLS = 1000


def await_call(turn: Turn, hostname: str) -> None:
    """A node has registered: it stays closed until it was called, unless this boot of it was before."""
    node = turn.known_node(hostname)
    boot_id = node.registration.boot_id if node.registration else ""
    if node.reached_boot != boot_id:
        node.awaits_call = True
        turn.state.refresh_status(hostname)


def got_through(turn: Turn, hostname: str) -> None:
    """The node has answered a call."""
    node = turn.known_node(hostname)
    node.awaits_call, node.unreached_since = False, None
    node.reached_boot = node.registration.boot_id if node.registration else ""
    node.host_faults = {part: told for part, told in node.host_faults.items() if part != REACH}
    turn.state.refresh_status(hostname)


def not_reached(turn: Turn, hostname: str, sentence: str) -> None:
    """A call did not get through; `sentence` says so to whoever looks at the node."""
    node = turn.known_node(hostname)
    node.reached_boot = ""
    if node.unreached_since is None:
        node.unreached_since = turn.monotonic
    if node.host_faults.get(REACH) != sentence:
        node.host_faults = {**node.host_faults, REACH: sentence}
    turn.state.refresh_status(hostname)


def hear_what_arrived(turn: Turn, hostname: str, attempts: Iterable[AttemptState]) -> list[AttemptState]:
    """Strike off the orders that have arrived by what the node lists; returns what it is to kill.

    Kills that cannot be sent to it go with the answer to its heartbeat.
    """
    if turn.known_node(hostname).unreached_since is None:
        return []
    orders = turn.state.orders
    executes = {
        (str(order.task_id), order.attempt): order
        for order in orders.of_node(hostname)
        if order.kind is OrderKind.EXECUTE
    }
    kills = {(str(kill.task_id), kill.attempt) for kill in orders.kills_of_node(hostname, _MOST_KILLS)}
    wanted = []
    for entry in attempts:
        key = (str(entry.task_id), entry.attempt)
        if entry.stray or entry.status in ENDED:
            continue
        if (order := executes.get(key)) is not None:
            turn.end_order(order.id)
            turn.known_node(hostname).accepted[order.task_id] = order.id
        if key in kills:
            wanted.append(entry)
    return wanted


def take_back(turn: Turn, hostname: str) -> None:
    """Have tasks wait anew whose orders did not get through; those that somebody has killed are killed."""
    if turn.known_node(hostname).unreached_since is None:
        return
    tasks = [turn.state.tasks[task_id] for task_id in sorted(turn.state.on_node.get(hostname, ()))]
    reason = f"node {hostname} cannot be reached"
    stuck = [task for task in tasks if was_never_taken(turn, task)]
    apply_changes_of_tasks(turn, [not_started(task, reason) for task in stuck])
