"""What this node keeps of work that has ended: told to the host, and removed on its word.

Rules: nothing goes of which an attempt is still held here, whatever the host says; `/local_temp` loses only
what was not touched since before the oldest workload that is there began, since nothing tells what it needs.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Container
from dataclasses import dataclass, field
from pathlib import Path

from kohakuriver.files.folders.deletion import delete_folder
from kohakuriver.files.folders.old_files import old_files, reading_is_noted
from kohakuriver.files.folders.sizes import folder_size
from kohakuriver.files.system.linkless import folder_below
from kohakuriver.models.enums import LeftoverKind
from kohakuriver.models.errors import InvalidInput, KohakuRiverError
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.runner.local_temp import DATA, LOGS, WORKLOADS, data_folder
from kohakuriver.runner.vps_service import SNAPSHOT_FOLDER, VpsService
from kohakuriver.wire.leftovers import MOST_IDS, NodeLeftovers, Removal, RemovalRequest, RemovedKind

_VPS_PREFIX = "vps-"
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class LeftoverParts:
    """`held_tasks`: those of which something runs, or is to be removed or reported.

    `sweep_images`: see `UnusedImages.sweep`, told by the request. `oldest_workload`: unix time at which the
    oldest container of a workload was made, None if there is none.
    """

    vps: VpsService
    held_tasks: Callable[[], Container[int]]
    shared_dir: Callable[[], Path | None]
    local_temp_dir: Path
    sweep_images: Callable[[RemovalRequest], Awaitable[tuple[int, int]]]
    oldest_workload: Callable[[], Awaitable[float | None]]
    clock: Callable[[], float] = time.time


@dataclass(slots=True)
class _Sums:
    counts: dict[LeftoverKind, int] = field(default_factory=dict)
    sizes: dict[LeftoverKind, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, kind: LeftoverKind, count: int, size_bytes: int) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + count
        self.sizes[kind] = self.sizes.get(kind, 0) + size_bytes

    def removal(self, most_faults: int = 50) -> Removal:
        kinds = [RemovedKind(kind.value, count, self.sizes[kind]) for kind, count in self.counts.items()]
        return Removal(kinds, self.faults[:most_faults])


class LeftoverService:
    """What the host asks about leftovers."""

    def __init__(self, parts: LeftoverParts) -> None:
        self._parts = parts

    async def tell(self) -> NodeLeftovers:
        """Raises Unavailable while the engine does not answer."""
        shared = self._parts.shared_dir()
        exported = [] if shared is None else await asyncio.to_thread(_ids_in, shared, SNAPSHOT_FOLDER)
        return NodeLeftovers(
            sessions=_texts(await self._parts.vps.kept_vps()),
            exported=_texts(exported),
            outputs=_texts(await asyncio.to_thread(_ids_in, self._parts.local_temp_dir, LOGS)),
        )

    async def remove(self, request: RemovalRequest) -> Removal:
        """Do what may be done of the request; each fault costs what it is about."""
        sums = _Sums()
        for work in (self._snapshots, self._outputs, self._images, self._local_temp):
            try:
                await work(request, sums)
            except KohakuRiverError as error:
                sums.faults.append(str(error))
            except OSError as error:
                sums.faults.append(f"{error.filename or 'a folder'}: {error.strerror or error}")
        return sums.removal()

    async def _snapshots(self, request: RemovalRequest, sums: _Sums) -> None:
        for task_id in self._ids(request.sessions):
            try:
                count, size_bytes = await self._parts.vps.size_of(task_id)
                if not request.dry_run:
                    await self._parts.vps.delete_kept(task_id)
            except KohakuRiverError as error:
                sums.faults.append(f"VPS {task_id}: {error}")
            else:
                sums.add(LeftoverKind.SNAPSHOTS, count, size_bytes)

    async def _outputs(self, request: RemovalRequest, sums: _Sums) -> None:
        start = self._parts.local_temp_dir
        for task_id in self._ids(request.outputs):
            size_bytes = await asyncio.to_thread(folder_size, start, (LOGS, str(task_id)))
            try:
                if not request.dry_run:
                    await asyncio.to_thread(delete_folder, start, (LOGS,), str(task_id))
            except KohakuRiverError as error:
                sums.faults.append(str(error))
            else:
                sums.add(LeftoverKind.OUTPUT, 1, size_bytes)

    async def _images(self, request: RemovalRequest, sums: _Sums) -> None:
        if request.images_days:
            sums.add(LeftoverKind.IMAGES, *await self._parts.sweep_images(request))

    async def _local_temp(self, request: RemovalRequest, sums: _Sums) -> None:
        if not request.local_temp_days:
            return
        start = self._parts.local_temp_dir
        if not await asyncio.to_thread(reading_is_noted, data_folder(start)):
            sums.faults.append(
                f"{data_folder(start)} is mounted with noatime, so nothing tells what of it is read; "
                "nothing there is removed"
            )
            return
        before = self._parts.clock() - request.local_temp_days * _DAY_SECONDS
        oldest = await self._parts.oldest_workload()
        before = before if oldest is None else min(before, oldest)
        found = await asyncio.to_thread(
            lambda: old_files(start, (WORKLOADS, DATA), before, removes=not request.dry_run)
        )
        sums.add(LeftoverKind.LOCAL_TEMP, found.count, found.size_bytes)
        if found.left_out:
            sums.faults.append(f"{found.left_out} folders or files of /local_temp could not be looked at")

    def _ids(self, named: Collection[str | int]) -> list[TaskId]:
        """Those of which nothing is here any more."""
        held = self._parts.held_tasks()
        return [task_id for task_id in map(parse_task_id, named) if task_id not in held]


def _ids_in(start: Path, name: str) -> list[int]:
    """The tasks after which folders of ours are named there."""
    found: list[int] = []
    try:
        with folder_below(start, (name,), access=os.O_RDONLY) as folder, os.scandir(folder) as entries:
            for entry in entries:
                text = entry.name.removeprefix(_VPS_PREFIX) if name == SNAPSHOT_FOLDER else entry.name
                try:
                    found.append(parse_task_id(text))
                except InvalidInput:
                    continue
    except FileNotFoundError:
        return []
    return found


def _texts(ids: Collection[int]) -> list[str | int]:
    """The oldest first, and no more than a message holds."""
    return [str(task_id) for task_id in sorted(ids)[:MOST_IDS]]
