"""Workloads of our cluster that stand on this engine under other nodes' names.

They are of a node that this machine was before, or of another runner on the engine; the host knows which.
They are looked at and shown, and left alone until their node's name is taken over. What was taken over is in
a file of the runner's, since labels of containers do not change.
"""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from math import ceil
from pathlib import Path

import msgspec
import structlog

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.errors import EngineFault, InvalidInput, KohakuRiverError, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.names import LABEL_CLUSTER, LABEL_NODE
from kohakuriver.private_files import read_private, write_private
from kohakuriver.runner.engines.contract.engine import OrphanWorkload, WorkloadState
from kohakuriver.runner.engines.docker.labels import Owner
from kohakuriver.runner.engines.docker.workloads.containers import Listed, WorkloadContainers

_FILE = "taken_over.json"
_LOOK_SECONDS = 15.0
_NANO = 1_000_000_000
_CDI = "nvidia.com/gpu="
_AMD = "/dev/kfd"

_log = structlog.get_logger()


class Orphans:
    """`open`, then `look` and `take_over` at any time. `folder`: private to this runner."""

    def __init__(self, api: DockerApi, owner: Owner, workloads: WorkloadContainers, folder: Path) -> None:
        self._api = api
        self._owner = owner
        self._workloads = workloads
        self._file = folder / _FILE
        self._known: dict[str, OrphanWorkload] = {}
        self._taken_over: set[str] = set()

    async def open(self) -> None:
        """Have as ours what was taken over before; to be called before anything of ours is listed."""
        if await asyncio.to_thread(self._file.exists):
            text = await asyncio.to_thread(read_private, self._file)
            try:
                self._taken_over = set(msgspec.json.decode(text, type=list[str]))
            except msgspec.MsgspecError as error:
                raise InvalidInput(
                    f"{self._file} is damaged; remove it, and decide about its nodes again"
                ) from error
            self._owner.take_over(self._taken_over)

    def running(self) -> list[OrphanWorkload]:
        """Those that were there at the last look and had not ended."""
        return [each for each in self._known.values() if each.state is not WorkloadState.EXITED]

    async def look(self) -> None:
        """See what is there now; what it takes is read once of each."""
        before, now = self._known, {}
        for row, task_id in await self._workloads.list_of_others():
            try:
                known = before.get(row.id) or await self._read(row, task_id)
                now[row.id] = replace(known, state=row.state)
            except NotFound:
                continue
        self._known = now

    async def watch(self) -> None:
        """Look again for as long as there is any."""
        while self._known:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except KohakuRiverError as error:
                _log.debug("leftovers_not_seen", reason=str(error))

    async def under(self, nodes: Iterable[str]) -> list[Listed]:
        """Everything of our cluster under these names that is not ours yet, sandboxes included."""
        return await self._workloads.list_under(set(nodes) - self._taken_over)

    async def take_over(self, nodes: Iterable[str]) -> None:
        """Have what stands under these names as ours, without asking the engine; EngineFault: it is not."""
        names = self._taken_over | set(nodes)
        if names == self._taken_over:
            return
        try:
            await asyncio.to_thread(write_private, self._file, json.dumps(sorted(names)).encode())
        except OSError as error:
            raise EngineFault(f"{self._file} cannot be written: {error.strerror}") from error
        self._taken_over = names
        self._owner.take_over(names)
        self._known = {key: each for key, each in self._known.items() if each.node not in names}
        _log.warning("containers_taken_over", nodes=sorted(names))

    async def _read(self, row: Listed, task_id: TaskId) -> OrphanWorkload:
        facts = await self._api.json("GET", f"containers/{row.id}/json")
        labels, config = facts["Config"]["Labels"], facts["HostConfig"]
        devices = [device.get("PathOnHost") for device in config.get("Devices") or ()]
        return OrphanWorkload(
            node=labels.get(LABEL_NODE, ""),
            task_id=task_id,
            attempt=row.attempt,
            state=row.state,
            cores=ceil((config.get("NanoCpus") or 0) / _NANO),
            memory_bytes=config.get("Memory") or 0,
            gpu_uuids=tuple(
                name.removeprefix(_CDI)
                for request in config.get("DeviceRequests") or ()
                for name in request.get("DeviceIDs") or ()
            ),
            all_amd=_AMD in devices,
            names_cluster=bool(labels.get(LABEL_CLUSTER)),
        )
