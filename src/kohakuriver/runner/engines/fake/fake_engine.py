"""An engine that obeys `engines.contract.engine` without a container: for benches and for clusters of many
nodes.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import NoReturn

from kohakuriver.models.errors import EngineFault, ProgramMissing, SwitchedOff
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.abilities import EngineAbilities, EngineAbility, needed_for
from kohakuriver.runner.engines.contract.engine import (
    ExitResult,
    FoundWorkload,
    OrphanWorkload,
    WorkloadState,
)
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.fake.inputs import FakeInputs
from kohakuriver.runner.engines.fake.machine import FakeMachine, FakeWorkload, check_attempt, find
from kohakuriver.runner.engines.fake.ports import FakePorts
from kohakuriver.runner.engines.fake.processes import FakeProcesses
from kohakuriver.runner.engines.fake.vps import FakeVps, new_vps

NO_FILES = "a workload of the fake machine is no process, so it has no files"


class FakeEngine:
    """`writes_output` False leaves the files alone, for benches that measure something else.

    `lacking`: what it is to be unable to do beside what it cannot do in any case.
    """

    def __init__(
        self,
        machine: FakeMachine,
        *,
        writes_output: bool = True,
        lacking: Mapping[EngineAbility, str] | None = None,
    ) -> None:
        self.abilities = EngineAbilities({EngineAbility.FILES: NO_FILES, **(lacking or {})})
        self._machine = machine
        self._writes_output = writes_output

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def faults(self) -> list[str]:
        return []

    @property
    def vps(self) -> FakeVps:
        self.abilities.require(EngineAbility.VPS)
        return FakeVps(self._machine, self.abilities)

    @property
    def inputs(self) -> FakeInputs:
        self.abilities.require(EngineAbility.INPUTS)
        return FakeInputs(self._machine)

    @property
    def processes(self) -> FakeProcesses:
        self.abilities.require(EngineAbility.PROCESSES)
        return FakeProcesses(self._machine)

    @property
    def files(self) -> NoReturn:
        raise SwitchedOff(self.abilities.lacking[EngineAbility.FILES])

    @property
    def ports(self) -> FakePorts:
        self.abilities.require(EngineAbility.PORTS)
        return FakePorts(self._machine)

    async def create(self, spec: WorkloadSpec, on_progress: Callable[[str], None]) -> None:
        self.abilities.require(*needed_for(spec))
        found = self._machine.workloads.get(spec.task_id)
        if found is not None and not _is_leftover(spec, found):
            check_attempt(found, spec.attempt)
            return
        if self._writes_output:
            await asyncio.to_thread(_reset, spec.stdout_path, spec.stderr_path)
        made = FakeWorkload(spec)
        if spec.session is not None:
            self._machine.workloads.pop(spec.task_id, None)
            made = new_vps(self._machine, spec, spec.session)
        self._machine.workloads[spec.task_id] = made

    async def start(self, task_id: TaskId, attempt: int) -> datetime:
        workload = find(self._machine, task_id, attempt)
        if workload.state is WorkloadState.CREATED:
            if workload.spec.session is None and workload.spec.argv[:1] == ("missing",):
                raise ProgramMissing("the command 'missing' was not found in the image")
            workload.start()
        return workload.started_at or datetime.now(UTC)

    async def wait(self, spec: WorkloadSpec) -> ExitResult:
        workload = find(self._machine, spec.task_id, spec.attempt)
        if workload.state is WorkloadState.CREATED:
            raise EngineFault("the workload was not started, so its end cannot be waited for")
        while True:
            changed, has_ended = workload.changes.next, workload.state is WorkloadState.EXITED
            if self._writes_output:
                await self._write_output(workload)
            if has_ended:
                break
            await _until_changed(workload, changed)
        now = datetime.now(UTC)
        return ExitResult(
            exit_code=workload.exit_code,
            oom_killed=workload.oom_killed,
            started_at=workload.started_at or now,
            finished_at=workload.finished_at or now,
            stdout_bytes=len(workload.stdout),
            stderr_bytes=len(workload.stderr),
        )

    async def stop(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        workload = find(self._machine, task_id, attempt)
        if workload.state not in (WorkloadState.RUNNING, WorkloadState.PAUSED):
            return
        workload.resume()
        workload.signal("TERM" if grace_seconds > 0 else "KILL")
        try:
            async with asyncio.timeout(grace_seconds):
                await _until_ended(workload)
        except TimeoutError:
            workload.kill()

    async def _write_output(self, workload: FakeWorkload) -> None:
        await asyncio.to_thread(_complete, workload.spec.stdout_path, workload.stdout)
        await asyncio.to_thread(_complete, workload.spec.stderr_path, workload.stderr)

    async def pause(self, task_id: TaskId, attempt: int) -> None:
        self.abilities.require(EngineAbility.PAUSE)
        workload = find(self._machine, task_id, attempt)
        if workload.state is WorkloadState.RUNNING:
            workload.pause()
        elif workload.state is not WorkloadState.PAUSED:
            raise EngineFault("the workload cannot be paused: it does not run")

    async def resume(self, task_id: TaskId, attempt: int) -> None:
        self.abilities.require(EngineAbility.PAUSE)
        workload = find(self._machine, task_id, attempt)
        if workload.state not in (WorkloadState.RUNNING, WorkloadState.PAUSED):
            raise EngineFault("the workload cannot be resumed: it does not run")
        workload.resume()

    async def remove(self, task_id: TaskId, attempt: int) -> None:
        workload = self._machine.workloads.get(task_id)
        if workload is not None:
            check_attempt(workload, attempt)
            if workload.state in (WorkloadState.RUNNING, WorkloadState.PAUSED):
                workload.kill()
            for tunnel in workload.tunnels:
                tunnel.end("the workload has ended")
            del self._machine.workloads[task_id]

    def orphans(self) -> list[OrphanWorkload]:
        found = [(node, each) for node, listed in self._machine.of_others.items() for each in listed]
        return [
            OrphanWorkload(
                node,
                each.spec.task_id,
                each.spec.attempt,
                each.state,
                ceil(each.spec.cores),
                each.spec.memory_bytes,
            )
            for node, each in found
            if each.state is not WorkloadState.EXITED
        ]

    async def take_over(self, nodes: Iterable[str]) -> list[FoundWorkload]:
        taken = [each for node in nodes for each in self._machine.of_others.pop(node, ())]
        self._machine.workloads.update({each.spec.task_id: each for each in taken})
        return [FoundWorkload(each.spec.task_id, each.spec.attempt, each.state) for each in taken]

    async def list_workloads(self) -> list[FoundWorkload]:
        return [
            FoundWorkload(task_id, workload.spec.attempt, workload.state)
            for task_id, workload in self._machine.workloads.items()
        ]


async def _until_ended(workload: FakeWorkload) -> None:
    while workload.state is not WorkloadState.EXITED:
        await _until_changed(workload, workload.changes.next)


async def _until_changed(workload: FakeWorkload, changed: asyncio.Event) -> None:
    """Also once it ends by itself. `changed`: the event as it was when its state was looked at."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(workload.seconds_left):
            await changed.wait()


def _is_leftover(spec: WorkloadSpec, found: FakeWorkload) -> bool:
    """Whether it is what an earlier run of a VPS left, and does not run."""
    is_older = spec.session is not None and found.spec.attempt < spec.attempt
    return is_older and found.state in (WorkloadState.CREATED, WorkloadState.EXITED)


def _reset(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _complete(path: Path, stream: bytes) -> None:
    """Append what the file lacks of the stream."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    with os.fdopen(fd, "ab") as file:
        file.write(stream[os.fstat(fd).st_size :])
