"""Work that a node holds under another node's name: counted there, until somebody decides whose it is.

It is there when a machine was renamed and enrolled anew, or its node was given up while it ran. Rules: what
stands under the name of a node that is here, or whose work is said to run, is that node's own affair. All
else takes its share of the machine's cores, memory and GPUs, whatever is on record of it. Nothing is ended
or moved without an administrator's word (`orphan_choice`).
"""

from dataclasses import dataclass

from kohakuriver.host.control.nodes.node import LiveNode
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.transitions import HOLDING
from kohakuriver.wire.messages import Heartbeat
from kohakuriver.wire.orphan import Orphan


def check_orphans(beat: Heartbeat) -> None:
    """Raise InvalidInput for what is no task."""
    for entry in beat.leftovers:
        parse_task_id(entry.task_id)


@dataclass(frozen=True, slots=True)
class Heard:
    """`take_over`: names whose containers are the node's from now on; `awaited`: tasks on record there that
    its runner lists as its own once it has heard that."""

    take_over: list[str]
    awaited: frozenset[TaskId]


def hear(turn: Turn, node: LiveNode, beat: Heartbeat) -> Heard:
    """Count what a heartbeat reports, and say whose it is."""
    state, hostname = turn.state, node.row.hostname
    nobodys = [entry for entry in beat.leftovers if not _is_of_another(state, hostname, entry)]
    on_record = [entry for entry in nobodys if is_on_record_here(state, hostname, entry)]
    node.take_over = node.take_over & {entry.node for entry in nobodys}
    counted = tuple(entry for entry in nobodys if entry not in on_record)
    if counted != node.orphans:
        node.orphans = counted
        state.put_node(node)
    return Heard(
        sorted({entry.node for entry in on_record} | node.take_over),
        frozenset(parse_task_id(entry.task_id) for entry in on_record),
    )


def _is_of_another(state: ClusterState, hostname: str, entry: Orphan) -> bool:
    """Of a node that is here, or perhaps of another cluster: it names none and is not on record here."""
    is_unknown = not entry.names_cluster and parse_task_id(entry.task_id) not in state.tasks
    return entry.node == hostname or is_unknown or not is_unreachable(state, entry.node)


def is_unreachable(state: ClusterState, name: str) -> bool:
    """Whether no node of that name is here, nor is one waited for."""
    node = state.nodes.get(name)
    return node is None or not (node.online or state.has_work_said_to_run(name))


def is_on_record_here(state: ClusterState, hostname: str, entry: Orphan) -> bool:
    task = state.tasks.get(parse_task_id(entry.task_id))
    return (
        task is not None
        and (task.assigned_node, task.attempt.number) == (hostname, entry.attempt)
        and task.state in HOLDING
    )
