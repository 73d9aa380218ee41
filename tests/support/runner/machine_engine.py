"""A machine whose workloads outlive whoever manages them, as an engine that can die at any step.

The process dies where `Death.step` says so: from then on nothing that the old agent does has any effect.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kohakuriver.models.errors import Conflict, EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.abilities import EngineAbilities
from kohakuriver.runner.engines.contract.engine import (
    Engine,
    ExitResult,
    FoundWorkload,
    OrphanWorkload,
    WorkloadState,
)
from kohakuriver.runner.engines.contract.files import WorkloadFiles
from kohakuriver.runner.engines.contract.inputs import InputPipe, Inputs
from kohakuriver.runner.engines.contract.ports import Ports
from kohakuriver.runner.engines.contract.processes import Processes
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots, Snapshot, VpsOperations, VpsSetup

Key = tuple[int, int]
T0 = datetime(2026, 11, 1, tzinfo=UTC)
_NOT_THE_AGENTS = AssertionError("an agent asks no engine for this")


class Dead(BaseException):
    """The process is gone; not an Exception, so that no boundary of the agent can swallow it."""


class Death:
    """Ends the process at the step number `at` (from 1); None: never. `steps` tells how many there were."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.steps = 0
        self.names: list[str] = []
        self.happened = asyncio.Event()

    def step(self, name: str) -> None:
        self.steps += 1
        self.names.append(name)
        if self.happened.is_set() or self.steps == self.at:
            self.happened.set()
            raise Dead(name)


@dataclass
class Workload:
    spec: WorkloadSpec
    state: WorkloadState = WorkloadState.CREATED
    exit_code: int | None = None
    oom_killed: bool = False
    fell: bool = False
    deaf: bool = False
    read: bytes = b""
    input_ended: bool = False
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    set_up: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


@dataclass
class Machine:
    """What is there, whoever manages it. `exits`: exit status at once after the start, by task.

    `graces`: what each stop was given. `kept`: what was kept of VPSs, by task, oldest first: the message
    of each snapshot. `steps`: what was done, in order.
    """

    workloads: dict[Key, Workload] = field(default_factory=dict)
    starts: dict[Key, int] = field(default_factory=dict)
    exits: dict[int, int] = field(default_factory=dict)
    removed: set[Key] = field(default_factory=set)
    kept: dict[int, list[str]] = field(default_factory=dict)
    spared: list[int | None] = field(default_factory=list)
    graces: list[float] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    async def finish(self, key: Key, exit_code: int, *, oom_killed: bool = False, fell: bool = False) -> None:
        """End a workload; `fell`: with its engine, and not by itself."""
        workload = self.workloads[key]
        async with workload.changed:
            workload.state = WorkloadState.EXITED
            workload.exit_code, workload.oom_killed, workload.fell = exit_code, oom_killed, fell
            workload.changed.notify_all()


class MachineEngine(Engine):
    """The engine contract over a `Machine`; each call is two steps at which the process may die."""

    abilities = EngineAbilities()

    def __init__(self, machine: Machine, death: Death) -> None:
        self.machine = machine
        self._death = death
        self.failing: dict[str, Exception] = {}
        self.create_gate = asyncio.Event()
        self.create_gate.set()

    def step(self, name: str) -> None:
        self._death.step(name)
        if name in self.failing:
            raise self.failing[name]
        self.machine.steps.append(name)

    def at(self, task_id: int, attempt: int) -> Workload:
        held = [number for task, number in self.machine.workloads if task == task_id]
        if not held:
            raise NotFound(f"no workload of task {task_id}")
        if attempt not in held:
            raise EngineFault(f"task {task_id} is here with attempt {held}")
        return self.machine.workloads[task_id, attempt]

    async def open(self) -> None:
        self.step("open")

    async def close(self) -> None: ...

    async def create(self, spec: WorkloadSpec, on_progress: Callable[[str], None]) -> str:
        self.step("create")
        on_progress("half")
        await self.create_gate.wait()
        for task_id, attempt in self.machine.workloads:
            if task_id == spec.task_id and attempt != spec.attempt:
                raise EngineFault("another attempt of this task is here")
        self.machine.workloads.setdefault((spec.task_id, spec.attempt), Workload(spec))
        self.step("created")
        return f"sha256:{spec.task_id}"

    async def start(self, task_id: TaskId, attempt: int) -> datetime:
        self.step("start")
        workload = self.at(task_id, attempt)
        if workload.state is WorkloadState.CREATED:
            self.machine.starts[task_id, attempt] = self.machine.starts.get((task_id, attempt), 0) + 1
            workload.state = WorkloadState.RUNNING
            if task_id in self.machine.exits:
                await self.machine.finish((task_id, attempt), self.machine.exits[task_id])
        self.step("started")
        return T0

    async def wait(self, spec: WorkloadSpec) -> ExitResult:
        self.step("wait")
        workload = self.at(spec.task_id, spec.attempt)
        async with workload.changed:
            await workload.changed.wait_for(lambda: workload.state is WorkloadState.EXITED)
        self.step("waited")
        return ExitResult(
            workload.exit_code or 0, workload.oom_killed, T0, T0, 1, 2, lost_to_system=workload.fell
        )

    async def stop(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        self.step("stop")
        self.machine.graces.append(grace_seconds)
        workload = self.at(task_id, attempt)
        if workload.deaf and grace_seconds > 0:
            await asyncio.sleep(grace_seconds)
        if workload.state in (WorkloadState.RUNNING, WorkloadState.PAUSED):
            await self.machine.finish((task_id, attempt), 143)
        self.step("stopped")

    async def pause(self, task_id: TaskId, attempt: int) -> None:
        self.step("pause")
        self.at(task_id, attempt).state = WorkloadState.PAUSED

    async def resume(self, task_id: TaskId, attempt: int) -> None:
        self.step("resume")
        self.at(task_id, attempt).state = WorkloadState.RUNNING

    async def remove(self, task_id: TaskId, attempt: int) -> None:
        self.step("remove")
        if self.machine.workloads.pop((task_id, attempt), None) is not None:
            self.machine.removed.add((task_id, attempt))
        self.step("removed")

    async def list_workloads(self) -> list[FoundWorkload]:
        self.step("list")
        return [
            FoundWorkload(TaskId(key[0]), key[1], workload.state)
            for key, workload in self.machine.workloads.items()
        ]

    def faults(self) -> list[str]:
        return []

    def orphans(self) -> list[OrphanWorkload]:
        """A machine of one name."""
        return []

    async def take_over(self, nodes: Iterable[str]) -> list[FoundWorkload]:
        return []

    @property
    def inputs(self) -> "MachineInputs":
        return MachineInputs(self)

    @property
    def vps(self) -> "MachineVps":
        return MachineVps(self)

    @property
    def processes(self) -> Processes:
        raise _NOT_THE_AGENTS

    @property
    def files(self) -> WorkloadFiles:
        raise _NOT_THE_AGENTS

    @property
    def ports(self) -> Ports:
        raise _NOT_THE_AGENTS


class MachineInputs(Inputs):
    """Standard input: a workload takes it as long as it runs, once `reads` is set, which it is at first."""

    def __init__(self, engine: MachineEngine) -> None:
        self._engine = engine

    async def open(self, task_id: TaskId, attempt: int) -> "MachineInput":
        self._engine.step("open_input")
        workload = self._engine.at(task_id, attempt)
        workload.reads.set()
        return MachineInput(self._engine, workload)


class MachineInput(InputPipe):
    def __init__(self, engine: MachineEngine, workload: Workload) -> None:
        self._engine = engine
        self._workload = workload

    async def write(self, data: bytes) -> bool:
        self._engine.step("write_input")
        if self._workload.state is WorkloadState.EXITED:
            return False
        self._workload.read += data
        await self._workload.reads.wait()
        return True

    async def end(self) -> None:
        self._engine.step("end_input")
        self._workload.input_ended = True

    async def settle(self) -> None:
        self._engine.step("settle_input")

    async def close(self) -> None: ...


class MachineVps(VpsOperations):
    """The VPSs' part of the contract; what is not the agent's own concern is refused."""

    def __init__(self, engine: MachineEngine) -> None:
        self._engine = engine

    async def set_up(self, task_id: TaskId, attempt: int, setup: VpsSetup) -> str:
        self._engine.step("set_up")
        workload = self._engine.at(task_id, attempt)
        if workload.state is not WorkloadState.RUNNING:
            raise Conflict(f"VPS {task_id} does not run")
        workload.set_up += 1
        self._engine.step("is_set_up")
        return "172.30.0.9"

    async def start_again(self, task_id: TaskId, attempt: int) -> None:
        self._engine.step("start_again")
        workload = self._engine.at(task_id, attempt)
        workload.state, workload.fell = WorkloadState.RUNNING, False
        self._engine.step("started_again")

    async def end_processes(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        self._engine.step("end_processes")
        workload = self._engine.at(task_id, attempt)
        workload.state = WorkloadState.RUNNING
        self._engine.step("processes_ended")

    async def take_snapshot(
        self, task_id: TaskId, attempt: int, message: str, rules: KeptSnapshots
    ) -> Snapshot:
        self._engine.step("snapshot")
        self._engine.at(task_id, attempt)
        kept = self._engine.machine.kept.setdefault(task_id, [])
        kept.append(message)
        self._engine.machine.spared.append(rules.protected)
        del kept[: -rules.most]
        self._engine.step("kept")
        return Snapshot(len(kept), message, 1)

    async def list_snapshots(self, task_id: TaskId) -> list[Snapshot]:
        raise _NOT_THE_AGENTS

    async def kept_vps(self) -> list[TaskId]:
        raise _NOT_THE_AGENTS

    async def delete_snapshot(self, task_id: TaskId, at: int) -> None:
        raise _NOT_THE_AGENTS

    async def export_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        raise _NOT_THE_AGENTS

    async def import_snapshot(self, task_id: TaskId, at: int, path: Path) -> None:
        raise _NOT_THE_AGENTS
