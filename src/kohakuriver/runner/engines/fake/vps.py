"""VPSs on the fake machine; see `engines.contract.vps` for the contract.

Images: `bare` has neither sshd nor a package manager, every other has sshd.
"""

import asyncio
import json
import time
from pathlib import Path

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.models.vps import FROM_IMAGE, FROM_NEWEST
from kohakuriver.runner.engines.contract.abilities import EngineAbilities, EngineAbility
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import NO_SSH_HELP, KeptSnapshots, Snapshot, VpsSetup
from kohakuriver.runner.engines.fake.machine import FakeMachine, FakeSnapshot, FakeWorkload, find

_IMAGE_WITHOUT_ANYTHING = "bare"


class FakeVps:
    def __init__(self, machine: FakeMachine, abilities: EngineAbilities) -> None:
        self._machine = machine
        self._abilities = abilities

    async def set_up(self, task_id: TaskId, attempt: int, setup: VpsSetup) -> str:
        workload = find(self._machine, task_id, attempt)
        if workload.state is not WorkloadState.RUNNING:
            raise Conflict(f"VPS {task_id} does not run, so it cannot be made ready")
        has_ssh = setup.ssh_key_mode is not SshKeyMode.DISABLED
        if has_ssh and workload.spec.body.image.registry_image == _IMAGE_WITHOUT_ANYTHING:
            raise EngineFault(f"the image holds neither sshd nor a package manager; {NO_SSH_HELP}")
        return workload.address

    async def start_again(self, task_id: TaskId, attempt: int) -> None:
        workload = find(self._machine, task_id, attempt)
        if workload.state is WorkloadState.EXITED:
            workload.start_again()

    async def end_processes(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        workload = find(self._machine, task_id, attempt)
        workload.resume()
        workload.end_programs()

    async def take_snapshot(
        self, task_id: TaskId, attempt: int, message: str, rules: KeptSnapshots
    ) -> Snapshot:
        self._abilities.require(EngineAbility.SNAPSHOTS)
        workload = find(self._machine, task_id, attempt)
        kept = self._machine.snapshots.setdefault(task_id, {})
        at = max(int(time.time()), max(kept, default=0) + 1)
        kept[at] = FakeSnapshot(message, dict(workload.disk))
        for old in rules.too_old(sorted(kept, reverse=True)):
            del kept[old]
        return _shown(at, kept[at])

    async def list_snapshots(self, task_id: TaskId) -> list[Snapshot]:
        self._abilities.require(EngineAbility.SNAPSHOTS)
        kept = self._machine.snapshots.get(task_id, {})
        return [_shown(at, kept[at]) for at in sorted(kept, reverse=True)]

    async def kept_vps(self) -> list[TaskId]:
        self._abilities.require(EngineAbility.SNAPSHOTS)
        return [task_id for task_id, kept in self._machine.snapshots.items() if kept]

    async def delete_snapshot(self, task_id: TaskId, at: int) -> None:
        self._abilities.require(EngineAbility.SNAPSHOTS)
        self._find(task_id, at)
        del self._machine.snapshots[task_id][at]

    async def export_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        self._abilities.require(EngineAbility.SNAPSHOTS)
        snapshot = self._find(task_id, at)
        document = {"task": task_id, "at": at, "message": snapshot.message, "disk": snapshot.disk}
        await asyncio.to_thread(_write, path, json.dumps(document))

    async def import_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        self._abilities.require(EngineAbility.SNAPSHOTS)
        kept = self._machine.snapshots.setdefault(task_id, {})
        if at in kept:
            return
        try:
            kept[at] = _parse(await asyncio.to_thread(path.read_bytes), task_id, at)
        except FileNotFoundError as error:
            raise NotFound(f"there is no snapshot at {path}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise EngineFault(f"the file {path} is no snapshot of this VPS: {error}") from error

    def _find(self, task_id: TaskId, at: int) -> FakeSnapshot:
        try:
            return self._machine.snapshots[task_id][at]
        except KeyError:
            raise NotFound(f"VPS {task_id} has no snapshot of the time {at} on this node") from None


def new_vps(machine: FakeMachine, spec: WorkloadSpec, setup: VpsSetup) -> FakeWorkload:
    """The VPS as it is made, with the disk that it is to begin from. Raises EngineFault."""
    kept = machine.snapshots.get(spec.task_id, {})
    disk: dict[str, str] = {}
    if setup.restore == FROM_NEWEST and kept:
        disk = kept[max(kept)].disk
    elif setup.restore not in (FROM_NEWEST, FROM_IMAGE):
        if not setup.restore.isdecimal() or int(setup.restore) not in kept:
            raise EngineFault(f"snapshot {setup.restore} of VPS {spec.task_id} is not on this node")
        disk = kept[int(setup.restore)].disk
    return FakeWorkload(spec, disk=dict(disk), address=machine.free_address(setup.address))


def _shown(at: int, snapshot: FakeSnapshot) -> Snapshot:
    return Snapshot(at, snapshot.message, sum(map(len, snapshot.disk.values())))


def _parse(content: bytes, task_id: TaskId, at: int) -> FakeSnapshot:
    document = json.loads(content)
    if (document["task"], document["at"]) != (task_id, at):
        raise ValueError("it is of another VPS or time")
    return FakeSnapshot(document["message"], document["disk"])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.rename(path)
