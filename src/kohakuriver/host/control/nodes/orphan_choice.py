"""An administrator's decision on work that stands under the name of a node that is unreachable.

Either word ends that node. Its records then go on at the node that holds the work, or are given up; its
containers are that node's from then on, so that they are judged like all others: what is on record there is
taken up again, and all else is ended.
"""

from kohakuriver.host.control.nodes import leaving as node_leaving
from kohakuriver.host.control.nodes.orphans import is_on_record_here, is_unreachable
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import OrphanChoice
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import parse_task_id
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import HOLDING
from kohakuriver.wire.orphan import Orphan


def decide(turn: Turn, hostname: str, source: str, choice: OrphanChoice, by: str) -> int:
    """Have what `hostname` holds under the name `source` go on as its own, or end; returns their count.

    Raises NotFound if it holds nothing under that name, Conflict if that node is here.
    """
    node = turn.known_node(hostname)
    orphans = [entry for entry in node.orphans if entry.node == source]
    if not orphans:
        raise NotFound(
            f"node {hostname} holds nothing under the name {source[:80]!r}; `kohakuriver node leftovers "
            f"{hostname}` shows what it holds"
        )
    if not is_unreachable(turn.state, source):
        raise Conflict(f"node {source} is there; what stands under its name is its own")
    if choice is OrphanChoice.ADOPT:
        for task in _tasks_of(turn.state, source, orphans):
            turn.end_orders_of(task.id)
            detail = f"{by}: what ran as {source} goes on as {hostname}"
            adopted = changed(task, attempt=changed(task.attempt, node=hostname))
            turn.replace_task(adopted, EventKind.ADOPTED, detail)
    if source in turn.state.nodes:
        node_leaving.remove(turn, source, force=True)
    node.take_over = node.take_over | {source}
    node.orphans = tuple(
        entry for entry in node.orphans if not is_on_record_here(turn.state, hostname, entry)
    )
    turn.state.put_node(node)
    return len(orphans)


def _tasks_of(state: ClusterState, source: str, orphans: list[Orphan]) -> list[Task]:
    """What is on record of the containers, and the VPSs whose snapshots lie beside them."""
    there = {(parse_task_id(entry.task_id), entry.attempt) for entry in orphans}
    tasks = [state.tasks[task_id] for task_id in sorted(state.on_node.get(source, ()))]
    return [task for task in tasks if (task.id, task.attempt.number) in there or task.state not in HOLDING]
