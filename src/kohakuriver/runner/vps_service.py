"""What the host asks of workloads beside their lives: signals; snapshots, here and in shared storage."""

import asyncio
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.files.folders.deletion import delete_folder
from kohakuriver.files.folders.sizes import folder_size
from kohakuriver.models.errors import Conflict, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.engines.contract.abilities import EngineAbility
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.vps import KeptSnapshots, Snapshot
from kohakuriver.runner.local_temp import LOGS

SNAPSHOT_FOLDER = "kohakuriver-snapshots"
REMOVAL_LOOKS = 150
_LOOK_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class VpsServiceParts:
    """`engine_of` gives the engine of a task, `engines` all that are open; Unavailable where there is none.

    `current_attempt`: the attempt of a task that has not ended here. `keep`: `MAX_SNAPSHOTS_PER_VPS`.
    `held_tasks`: those of which something runs, or is still to be removed or reported. `shared_dir` gives
    SHARED_DIR if it is the cluster's, None otherwise.
    """

    engine_of: Callable[[TaskId], Engine]
    engines: Callable[[], Sequence[Engine]]
    current_attempt: Callable[[TaskId], Attempt | None]
    held_tasks: Callable[[], Container[int]]
    keep: int
    shared_dir: Callable[[], Path | None]
    local_temp_dir: Path


class VpsService:
    """Every method raises Unavailable while the engine does not answer."""

    def __init__(self, parts: VpsServiceParts) -> None:
        self._parts = parts

    def attempt_number(self, task_id: TaskId) -> int:
        """Of the run that is under way; raises NotFound if there is none."""
        attempt = self._parts.current_attempt(task_id)
        if attempt is None or attempt.spec is None or attempt.spec.session is None:
            raise NotFound(f"this node does not run VPS {task_id}")
        return attempt.number

    async def signal(self, task_id: TaskId, attempt: int, name: str) -> None:
        """Send a signal to all processes of an attempt; raises NotFound or Conflict if it does not run."""
        current = self._parts.current_attempt(task_id)
        if current is None or current.number != attempt:
            raise NotFound(f"this node does not run attempt {attempt} of task {task_id}")
        await self._parts.engine_of(task_id).processes.signal(task_id, name)

    async def take(self, task_id: TaskId, message: str) -> Snapshot:
        if self._parts.keep == 0:
            raise Conflict("this node keeps no snapshots (MAX_SNAPSHOTS_PER_VPS is 0)")
        number = self.attempt_number(task_id)
        kept = KeptSnapshots(self._parts.keep)
        return await self._parts.engine_of(task_id).vps.take_snapshot(task_id, number, message, kept)

    async def kept_vps(self) -> list[TaskId]:
        """The VPSs that have snapshots on this node."""
        engines = [each for each in self._parts.engines() if EngineAbility.SNAPSHOTS in each.abilities]
        return [task_id for engine in engines for task_id in await engine.vps.kept_vps()]

    async def list(self, task_id: TaskId) -> list[Snapshot]:
        """Newest first."""
        return await self._parts.engine_of(task_id).vps.list_snapshots(task_id)

    async def delete(self, task_id: TaskId, at: int) -> None:
        await self._parts.engine_of(task_id).vps.delete_snapshot(task_id, at)

    async def delete_all(self, task_id: TaskId) -> int:
        """Return how many there were."""
        found = await self.list(task_id)
        for snapshot in found:
            await self.delete(task_id, snapshot.at)
        return len(found)

    async def delete_vps(self, task_id: TaskId) -> int:
        """Delete what an ended VPS left: its snapshots, here and in shared storage, and output kept here.

        Return how many snapshots there were on this node. Raises Conflict for one that runs, or of which the
        engine still holds something; a repetition goes on where one before stopped.
        """
        await self._until_gone(task_id)
        deleted = await self.delete_kept(task_id)
        await asyncio.to_thread(delete_folder, self._parts.local_temp_dir, (LOGS,), str(task_id))
        return deleted

    async def size_of(self, task_id: TaskId) -> tuple[int, int]:
        """How many snapshots a VPS has here and in shared storage, and how many bytes."""
        found = await self.list(task_id)
        exported = await asyncio.to_thread(self._exported_size, task_id)
        return len(found) + (exported > 0), sum(snapshot.size_bytes for snapshot in found) + exported

    async def delete_kept(self, task_id: TaskId) -> int:
        """Delete a VPS's snapshots, here and in shared storage; return how many were here."""
        deleted = await self.delete_all(task_id)
        shared = self._parts.shared_dir()
        if shared is not None:
            await asyncio.to_thread(delete_folder, shared, (SNAPSHOT_FOLDER,), f"vps-{task_id}")
        return deleted

    def _exported_size(self, task_id: TaskId) -> int:
        shared = self._parts.shared_dir()
        return 0 if shared is None else folder_size(shared, (SNAPSHOT_FOLDER, f"vps-{task_id}"))

    async def _until_gone(self, task_id: TaskId) -> None:
        """An end is reported before the container is removed, and a deletion may follow at once."""
        for _ in range(REMOVAL_LOOKS):
            if task_id not in self._parts.held_tasks():
                return
            await asyncio.sleep(_LOOK_PAUSE_SECONDS)
        raise Conflict(f"VPS {task_id} is still being removed from its node; try again in a moment")

    async def export(self, task_id: TaskId, at: int) -> None:
        """Put a snapshot into shared storage, for another node to take; free if it is there."""
        path = self._shared_path(task_id, at)
        await self._parts.engine_of(task_id).vps.export_snapshot(task_id, at, path)

    async def take_in(self, task_id: TaskId, at: int) -> None:
        """Take a snapshot from shared storage onto this node."""
        path = self._shared_path(task_id, at)
        if not await asyncio.to_thread(os.path.lexists, path):
            raise NotFound(f"there is no snapshot {at} of VPS {task_id} in shared storage")
        await self._parts.engine_of(task_id).vps.import_snapshot(task_id, at, path)

    def _shared_path(self, task_id: TaskId, at: int) -> Path:
        shared = self._parts.shared_dir()
        if shared is None:
            raise Unavailable(
                "snapshots go from node to node by way of shared storage, and this node has not the cluster's"
            )
        return shared / SNAPSHOT_FOLDER / f"vps-{task_id}" / f"{at}.tar"
