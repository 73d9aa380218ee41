"""What may be asked of VPSs. What changes something returns after the commit."""

from collections.abc import Callable
from functools import partial

from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.host.control.tasks.waiting_work import WaitingLimits
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.control.vps import runs
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from kohakuriver.models.vps import FROM_NEWEST


class VpsControl:
    """See `vps.runs` for what the calls mean. All raise NotFound for what is none."""

    def __init__(self, loop: ControlLoop, limits: WaitingLimits) -> None:
        self._loop = loop
        self._limits = limits

    async def create(self, owner: str, spec: TaskSpec) -> Task:
        """Put a VPS into the queue; raises Conflict for a name that another one has.

        Raises NotFound or InvalidInput for a place that does not exist, Unavailable while the store is full.
        """
        with self._loop.watch.room_for([spec]):
            made = partial(runs.create, owner=owner, spec=spec, limits=self._limits)
            task = await self._loop.call(made)
        # The same turn may have placed it already; what is answered is what was committed.
        return self._loop.state.tasks.get(task.id, task)

    def active(self) -> list[Task]:
        """VPSs that run, are being started, or wait, newest first."""
        tasks = self._loop.state.tasks.values()
        return sorted((t for t in tasks if t.is_vps and t.state not in ENDED), key=lambda t: -t.id)

    async def stop(self, task_id: TaskId) -> None:
        """Raises Conflict unless it runs or is paused."""
        await self._on_vps(task_id, runs.stop)

    async def restart(self, task_id: TaskId, restore: str = FROM_NEWEST, node: str | None = None) -> None:
        """Raises Conflict for one that is being started or is lost, NoCapacity while its node has no room.

        `restore`: see `models.vps`; `node`: where a stopped one goes on, its own if None.
        """
        await self._on_vps(task_id, partial(runs.restart, restore=restore, node=node))

    async def begin_deleting(self, task: Task) -> None:
        """See `runs.begin_deleting`; `task` is the committed record of a VPS."""
        await self._loop.call(partial(_on_record, task=task, change=runs.begin_deleting))

    async def delete(self, task: Task) -> None:
        """Delete the record of a VPS whose deleting has begun."""
        await self._loop.call(partial(_on_record, task=task, change=_delete_record))

    def of_key(self, public_key: str) -> set[TaskId]:
        """VPSs that a public key (`type base64`, without comment) opens."""
        return {
            task.id
            for task in self._loop.state.tasks.values()
            if task.spec.vps is not None
            and any(key.split(" ")[:2] == public_key.split(" ")[:2] for key in task.spec.vps.authorized_keys)
        }

    async def _on_vps(self, task_id: TaskId, change: Callable[[Turn, Task], None]) -> None:
        def handler(turn: Turn) -> None:
            task = turn.state.tasks.get(task_id)
            if task is None or not task.is_vps:
                raise NotFound(f"there is no VPS {task_id} that can be stopped or started")
            change(turn, task)

        await self._loop.call(handler)


def _on_record(turn: Turn, task: Task, change: Callable[[Turn, Task], None]) -> None:
    """For what is also asked of VPSs that ended for good, which only the store knows."""
    change(turn, turn.state.tasks.get(task.id, task))


def _delete_record(turn: Turn, task: Task) -> None:
    if task.state not in ENDED:
        raise Conflict(f"VPS {task.id} is {task.state.value}; only one that has ended can be deleted")
    turn.delete_task(task.id)
