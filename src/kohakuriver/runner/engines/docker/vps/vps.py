"""VPSs in Docker containers; see `engines.contract.vps` for the contract.

A VPS is a workload like any other to `docker_engine`, with which this shares what is held and the locks.
It is set up, and its processes are ended, without the task's lock: a package manager may take
minutes, which no kill is to wait for.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.dockerapi.client import DockerApi
from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import Conflict, EngineFault
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.faults import LostByEngine, storage_fault
from kohakuriver.runner.engines.contract.vps import KeptSnapshots, Snapshot, VpsSetup
from kohakuriver.runner.engines.docker.access.ports import SSH_PORT, DockerPorts, dial_inside
from kohakuriver.runner.engines.docker.inside.kept_edits import Edits
from kohakuriver.runner.engines.docker.inside.network_files import NetworkFacts, NetworkFiles
from kohakuriver.runner.engines.docker.inside.vps_files import VpsFiles
from kohakuriver.runner.engines.docker.sandboxes.containers import SandboxContainers
from kohakuriver.runner.engines.docker.snapshots.files import export_snapshot, import_snapshot
from kohakuriver.runner.engines.docker.snapshots.snapshots import Snapshots
from kohakuriver.runner.engines.docker.vps.ssh import ensure_sshd
from kohakuriver.runner.engines.docker.vps.sshd_config import ssh_files
from kohakuriver.runner.engines.docker.workloads.containers import WorkloadContainers
from kohakuriver.runner.engines.docker.workloads.end import end_inner
from kohakuriver.runner.engines.docker.workloads.known_containers import KnownContainer, KnownContainers
from kohakuriver.runner.engines.docker.workloads.start import start_in_sandbox
from kohakuriver.runner.engines.docker.workloads.task_locks import TaskLocks


@dataclass(frozen=True, slots=True)
class DockerVpsParts:
    """What VPSs share with the engine."""

    workloads: WorkloadContainers
    sandboxes: SandboxContainers
    known_containers: KnownContainers
    locks: TaskLocks
    network_files: NetworkFiles
    files: VpsFiles
    snapshots: Snapshots
    ports: DockerPorts


class DockerVps:
    def __init__(self, api: DockerApi, parts: DockerVpsParts) -> None:
        self._api = api
        self._parts = parts
        self._setting_up = TaskLocks()

    async def set_up(self, task_id: TaskId, attempt: int, setup: VpsSetup) -> str:
        async with self._setting_up.of(task_id):
            known = await self._parts.known_containers.find(task_id, attempt)
            self._parts.workloads.ending.discard(known.id)
            facts = await self._parts.workloads.inspect(known.id)
            if facts.state is not WorkloadState.RUNNING:
                raise Conflict(f"VPS {task_id} does not run, so it cannot be made ready")
            sandbox = await self._parts.ports.reachable_sandbox(task_id, known)
            if setup.ssh_key_mode is not SshKeyMode.DISABLED:
                root = NetworkFacts.of(sandbox).root
                await asyncio.to_thread(self._write_files, task_id, ssh_files(setup, facts.env), root)
                await ensure_sshd(self._api, known.id, lambda: dial_inside(sandbox, SSH_PORT))
            return sandbox.address

    def _write_files(self, task_id: TaskId, texts: Mapping[str, str], root: tuple[int, int]) -> None:
        try:
            self._parts.files.install_tools()
            self._parts.files.write_ssh(task_id, texts, root)
        except OSError as error:
            folder = self._parts.network_files.folder_of(task_id)
            raise storage_fault("the SSH files of a VPS", folder, error) from error

    async def start_again(self, task_id: TaskId, attempt: int) -> None:
        async with self._parts.locks.of(task_id):
            known = await self._parts.known_containers.find(task_id, attempt)
            if (await self._parts.workloads.inspect(known.id)).state is not WorkloadState.EXITED:
                return
            if known.sandbox is None:
                raise EngineFault(
                    f"the network of VPS {task_id} was removed from the engine, so it cannot go on in "
                    "its container; restart it from a snapshot"
                )
            try:
                await self._start(known)
            except LostByEngine:
                await self._start(known)  # what the engine had forgotten has ended now
            await self._look_at_network(task_id, known)

    async def _start(self, known: KnownContainer) -> None:
        await start_in_sandbox(self._parts.workloads, self._parts.sandboxes, known.id, known.sandbox)

    async def _look_at_network(self, task_id: TaskId, known: KnownContainer) -> None:
        """The engine may have given another address where the one before was taken."""
        before = known.sandbox
        if before is not None:
            sandbox = known.sandbox = await self._parts.sandboxes.read(before.id)
            if sandbox.address != before.address:
                files = self._parts.network_files
                facts = NetworkFacts.of(before), NetworkFacts.of(sandbox)
                try:
                    await asyncio.to_thread(files.renew, task_id, *facts)
                except OSError as error:
                    folder = files.folder_of(task_id)
                    raise storage_fault("the new address of a VPS", folder, error) from error

    async def end_processes(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        known = await self._parts.known_containers.find(task_id, attempt)
        await end_inner(self._parts.workloads, known.id, grace_seconds)

    async def take_snapshot(
        self, task_id: TaskId, attempt: int, message: str, kept: KeptSnapshots
    ) -> Snapshot:
        async with self._parts.locks.of(task_id):
            known = await self._parts.known_containers.find(task_id, attempt)
            edits = await self._edits(task_id, known)
            return await self._parts.snapshots.take(task_id, known.id, message, kept, edits)

    async def _edits(self, task_id: TaskId, known: KnownContainer) -> Edits:
        """What its users changed in the files of ours that it has."""
        files = self._parts.network_files
        facts = NetworkFacts.of(known.sandbox) if known.sandbox is not None else None
        try:
            return await asyncio.to_thread(files.edits, task_id, facts)
        except OSError as error:
            folder = files.folder_of(task_id)
            raise EngineFault(
                f"what its users changed in {folder} cannot be read ({error.strerror})"
            ) from error

    async def list_snapshots(self, task_id: TaskId) -> list[Snapshot]:
        return await self._parts.snapshots.list(task_id)

    async def kept_vps(self) -> list[TaskId]:
        return await self._parts.snapshots.task_ids()

    async def delete_snapshot(self, task_id: TaskId, at: int) -> None:
        async with self._parts.locks.of(task_id):
            await self._parts.snapshots.delete(task_id, at)

    async def export_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        await export_snapshot(self._api, task_id, at, path)

    async def import_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        async with self._parts.locks.of(task_id):
            await import_snapshot(self._api, task_id, at, path)
