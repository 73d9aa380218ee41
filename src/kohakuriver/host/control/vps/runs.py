"""VPSs: stop and start again, and what their runners report about them.

A run of a VPS is an attempt of its task. One that is started again keeps its node, where its snapshots
are, unless it is moved in so many words; the ledger is asked as for any placement.
"""

from dataclasses import replace

from kohakuriver.host.control.tasks import submission
from kohakuriver.host.control.tasks.waiting_work import WaitingLimits
from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Conflict, NoCapacity, Unavailable
from kohakuriver.models.events import EventKind
from kohakuriver.models.records import changed
from kohakuriver.models.resources import Demand
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ALIVE, ENDED, RESTARTABLE
from kohakuriver.models.vps import FROM_NEWEST, VpsState
from kohakuriver.wire.messages import TaskReport


def create(turn: Turn, owner: str, spec: TaskSpec, limits: WaitingLimits) -> Task:
    """Accept a VPS; raises Conflict for a name that is taken."""
    _check_name(turn, spec.name)
    return submission.submit(turn, owner, [spec], needs_approval=False, limits=limits).tasks[0]


def _check_name(turn: Turn, name: str | None) -> None:
    """No two VPSs that run, or are about to, have the same name, since users reach them by it."""
    taken = {task.spec.name for task in turn.state.tasks.values() if task.is_vps and task.state not in ENDED}
    if name is not None and name in taken:
        raise Conflict(f"there is a VPS named {name} already; stop that one or choose another name")


def stop(turn: Turn, task: Task) -> None:
    """End a VPS in order; its runner makes a snapshot first, if it is told to by its settings.

    One that is to be started again, once its node can, stays down instead.
    """
    if _waits(task):
        _stop_asked(turn, task)
        return
    if task.state not in ALIVE:
        raise Conflict(f"VPS {task.id} is {task.state.value}; only one that runs or is paused can be stopped")
    turn.order(_stop_asked(turn, task), OrderKind.STOP)


def _stop_asked(turn: Turn, task: Task) -> Task:
    asked = replace(_state(task), restart_requested=False, notice=None)
    return _stands_at(turn, task, asked, EventKind.STOP_REQUESTED)


def restart(turn: Turn, task: Task, restore: str = FROM_NEWEST, node: str | None = None) -> None:
    """Start a VPS again: at once if it is stopped or failed, else after it has been stopped in order.

    While its node takes no work at all (it is unreachable, has a fault, is drained) the VPS waits for it.
    """
    if task.state in ALIVE:
        if node not in (None, task.assigned_node):
            raise Conflict(f"VPS {task.id} runs; stop it before it is moved to another node")
        asked = replace(_state(task), restart_requested=True, restore=restore, notice=None)
        turn.order(_stands_at(turn, task, asked, EventKind.RESTART_REQUESTED), OrderKind.STOP)
        return
    if task.vps_state is not None and task.vps_state.deleting:
        raise Conflict(f"VPS {task.id} is being deleted and cannot be started again")
    if task.state not in RESTARTABLE:
        raise Conflict(f"VPS {task.id} is {task.state.value} and cannot be started again now")
    _check_name(turn, task.spec.name)
    home = turn.state.table.peek(task.assigned_node) if task.assigned_node and node is None else None
    if home is not None and home.closed_reason:
        waiting = f"it starts once node {home.name} takes work again, which now {home.closed_reason}"
        held = replace(_state(task), restart_requested=True, restore=restore, notice=waiting)
        _stands_at(turn, task, held, EventKind.RESTART_WAITS)
        return
    _begin_again(turn, task, restore, node or task.assigned_node)


def begin_deleting(turn: Turn, task: Task) -> None:
    """Have a VPS that has ended stay down while what it left is deleted; may be repeated.

    Raises Conflict for one that has not ended, Unavailable while the node with its snapshots is unreachable.
    """
    if task.state not in ENDED:
        raise Conflict(
            f"VPS {task.id} is {task.state.value}; end it first (`kohakuriver vps stop` or `vps kill`)"
        )
    home = turn.state.nodes.get(task.assigned_node) if task.assigned_node else None
    if home is not None and not home.online:
        raise Unavailable(
            f"node {home.row.hostname}, with the snapshots of VPS {task.id}, is unreachable; try again "
            "once it is back, or remove the node if it is gone for good"
        )
    if task.state in RESTARTABLE:
        notice = "it is being deleted; `kohakuriver vps delete` goes on with that"
        ending = replace(_state(task), restart_requested=False, deleting=True, notice=notice)
        _stands_at(turn, task, ending, EventKind.DELETE_REQUESTED)


def after_report(turn: Turn, task: Task, report: TaskReport) -> Task:
    """Take in what a report says of a VPS beside its state; goes on with a restart that waits for it."""
    if not task.is_vps:
        return task
    state, attempt = _state(task), task.attempt
    notice = state.notice if report.notice is None else report.notice or None
    told = replace(state, notice=notice)
    if report.stop_given_up:
        told = replace(told, restart_requested=False)
    address = report.address or attempt.address
    if (told, address) != (state, attempt.address):
        after = changed(task, vps_state=told, attempt=changed(attempt, address=address))
        task = turn.replace_task(after, EventKind.SESSION_CHANGED, report.notice or None)
    if task.state is TaskState.STOPPED and told.restart_requested:
        task = _follow_on(turn, task, told)
    return task


def begin_waiting(turn: Turn, hostname: str) -> None:
    """Start the VPSs of a node whose restart has waited for room on it."""
    for task_id in tuple(turn.state.on_node.get(hostname, ())):
        task = turn.state.tasks[task_id]
        if task.vps_state is not None and _waits(task):
            _follow_on(turn, task, task.vps_state)


def _waits(task: Task) -> bool:
    return task.state in RESTARTABLE and task.vps_state is not None and task.vps_state.restart_requested


def _follow_on(turn: Turn, task: Task, state: VpsState) -> Task:
    """Go on with a restart; while its node has no room it waits, and says so."""
    try:
        return _begin_again(turn, task, state.restore, task.assigned_node)
    except NoCapacity as error:
        waiting = replace(state, notice=str(error))
        if waiting == state:
            return task
        return _stands_at(turn, task, waiting, EventKind.RESTART_WAITS, str(error))
    except Conflict as error:
        after = replace(
            state, restart_requested=False, notice=f"it was stopped and not started again: {error}"
        )
        return _stands_at(turn, task, after, EventKind.RESTART_REFUSED, str(error))


def _begin_again(turn: Turn, task: Task, restore: str, node: str | None) -> Task:
    view = turn.state.table.peek(node) if node else None
    if view is None:
        raise Conflict(
            f"node {node} is not part of the cluster any more; restore the VPS on another one (--to NODE)"
            if node
            else f"VPS {task.id} never ran on a node; create it anew"
        )
    demand = _demand_on(view.name, task)
    if (obstacle := view.obstacle(demand)) is not None:
        raise NoCapacity(f"VPS {task.id} cannot be started on node {view.name} now: {obstacle}")
    state = replace(_state(task), restart_requested=False, restore=restore, notice=None)
    return turn.begin(task, view.name, f"started again on {view.name}", state)


def _demand_on(node: str, task: Task) -> Demand:
    demand, target = task.spec.demand, task.spec.target
    if target is None or target.hostname == node:
        return changed(demand, target=target or Target(node))
    if demand.gpus or target.numa_node is not None:
        raise Conflict(
            f"VPS {task.id} asks for GPUs or a NUMA node of {target.hostname} by number, "
            "so it cannot be started on another node; create a new one there"
        )
    return changed(demand, target=Target(node))


def _state(task: Task) -> VpsState:
    return task.vps_state or VpsState()


def _stands_at(turn: Turn, task: Task, state: VpsState, kind: EventKind, detail: str | None = None) -> Task:
    return turn.replace_task(changed(task, vps_state=state), kind, detail)
