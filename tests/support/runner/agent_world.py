"""A machine whose workloads outlive the agent, an agent on it that can be killed at any step, and a host.

The process dies where `Death.step` says so: from then on nothing that the old agent does has any effect.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Conflict, EngineFault, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.resources import Gpu, NumaNode
from kohakuriver.models.transitions import ENDED
from kohakuriver.runner.agent.agent import Agent
from kohakuriver.runner.agent.agent_parts import AgentParts
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.life.rules import KeepingRules
from kohakuriver.runner.agent.order_spec import NodeFacts, TaskSettings
from kohakuriver.runner.agent.start_row import StartRow
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
from kohakuriver.runner.engines.contract.spec import DOCKER, UserIds, WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots, Snapshot, VpsOperations, VpsSetup
from kohakuriver.runner.engines.engines import Opener
from kohakuriver.wire.messages import Order, TaskReport, VpsOrder

Key = tuple[int, int]
DEADLINE_SECONDS = 20.0
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


def defect_of(ended: "asyncio.Task[None] | None") -> BaseException | None:
    """What ended a job that was to run for ever, unless it was death."""
    if ended is None or ended.cancelled():
        return None
    error = ended.exception() or AssertionError(f"{ended} returned")
    if isinstance(error, BaseExceptionGroup):
        return error.split(Dead)[1]
    return None if isinstance(error, Dead) else error


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

    def _step(self, name: str) -> None:
        self._death.step(name)
        if name in self.failing:
            raise self.failing[name]
        self.machine.steps.append(name)

    def _at(self, task_id: int, attempt: int) -> Workload:
        held = [number for task, number in self.machine.workloads if task == task_id]
        if not held:
            raise NotFound(f"no workload of task {task_id}")
        if attempt not in held:
            raise EngineFault(f"task {task_id} is here with attempt {held}")
        return self.machine.workloads[task_id, attempt]

    async def open(self) -> None:
        self._step("open")

    async def close(self) -> None: ...

    async def create(self, spec: WorkloadSpec, on_progress: Callable[[str], None]) -> str:
        self._step("create")
        on_progress("half")
        await self.create_gate.wait()
        for task_id, attempt in self.machine.workloads:
            if task_id == spec.task_id and attempt != spec.attempt:
                raise EngineFault("another attempt of this task is here")
        self.machine.workloads.setdefault((spec.task_id, spec.attempt), Workload(spec))
        self._step("created")
        return f"sha256:{spec.task_id}"

    async def start(self, task_id: TaskId, attempt: int) -> datetime:
        self._step("start")
        workload = self._at(task_id, attempt)
        if workload.state is WorkloadState.CREATED:
            self.machine.starts[task_id, attempt] = self.machine.starts.get((task_id, attempt), 0) + 1
            workload.state = WorkloadState.RUNNING
            if task_id in self.machine.exits:
                await self.machine.finish((task_id, attempt), self.machine.exits[task_id])
        self._step("started")
        return T0

    async def wait(self, spec: WorkloadSpec) -> ExitResult:
        self._step("wait")
        workload = self._at(spec.task_id, spec.attempt)
        async with workload.changed:
            await workload.changed.wait_for(lambda: workload.state is WorkloadState.EXITED)
        self._step("waited")
        return ExitResult(
            workload.exit_code or 0, workload.oom_killed, T0, T0, 1, 2, lost_to_system=workload.fell
        )

    async def stop(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        self._step("stop")
        self.machine.graces.append(grace_seconds)
        workload = self._at(task_id, attempt)
        if workload.deaf and grace_seconds > 0:
            await asyncio.sleep(grace_seconds)
        if workload.state in (WorkloadState.RUNNING, WorkloadState.PAUSED):
            await self.machine.finish((task_id, attempt), 143)
        self._step("stopped")

    async def pause(self, task_id: TaskId, attempt: int) -> None:
        self._step("pause")
        self._at(task_id, attempt).state = WorkloadState.PAUSED

    async def resume(self, task_id: TaskId, attempt: int) -> None:
        self._step("resume")
        self._at(task_id, attempt).state = WorkloadState.RUNNING

    async def remove(self, task_id: TaskId, attempt: int) -> None:
        self._step("remove")
        if self.machine.workloads.pop((task_id, attempt), None) is not None:
            self.machine.removed.add((task_id, attempt))
        self._step("removed")

    async def list_workloads(self) -> list[FoundWorkload]:
        self._step("list")
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
        self._engine._step("open_input")
        workload = self._engine._at(task_id, attempt)
        workload.reads.set()
        return MachineInput(self._engine, workload)


class MachineInput(InputPipe):
    def __init__(self, engine: MachineEngine, workload: Workload) -> None:
        self._engine = engine
        self._workload = workload

    async def write(self, data: bytes) -> bool:
        self._engine._step("write_input")
        if self._workload.state is WorkloadState.EXITED:
            return False
        self._workload.read += data
        await self._workload.reads.wait()
        return True

    async def end(self) -> None:
        self._engine._step("end_input")
        self._workload.input_ended = True

    async def settle(self) -> None:
        self._engine._step("settle_input")

    async def close(self) -> None: ...


class MachineVps(VpsOperations):
    """The VPSs' part of the contract; what is not the agent's own concern is refused."""

    def __init__(self, engine: MachineEngine) -> None:
        self._engine = engine

    async def set_up(self, task_id: TaskId, attempt: int, setup: VpsSetup) -> str:
        self._engine._step("set_up")
        workload = self._engine._at(task_id, attempt)
        if workload.state is not WorkloadState.RUNNING:
            raise Conflict(f"VPS {task_id} does not run")
        workload.set_up += 1
        self._engine._step("is_set_up")
        return "172.30.0.9"

    async def start_again(self, task_id: TaskId, attempt: int) -> None:
        self._engine._step("start_again")
        workload = self._engine._at(task_id, attempt)
        workload.state, workload.fell = WorkloadState.RUNNING, False
        self._engine._step("started_again")

    async def end_processes(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        self._engine._step("end_processes")
        workload = self._engine._at(task_id, attempt)
        workload.state = WorkloadState.RUNNING
        self._engine._step("processes_ended")

    async def take_snapshot(
        self, task_id: TaskId, attempt: int, message: str, rules: KeptSnapshots
    ) -> Snapshot:
        self._engine._step("snapshot")
        self._engine._at(task_id, attempt)
        kept = self._engine.machine.kept.setdefault(task_id, [])
        kept.append(message)
        self._engine.machine.spared.append(rules.protected)
        del kept[: -rules.most]
        self._engine._step("kept")
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


class MortalBook(DurableBook):
    """A durable book whose process may die before and after each write."""

    def __init__(self, path: Path, death: Death) -> None:
        super().__init__(path)
        self._death = death

    async def persist(self, *records: object) -> None:
        self._death.step("write")
        await super().persist(*records)  # type: ignore[arg-type]
        self._death.step("written")


@dataclass
class RecordingHost:
    """The host's side of reports. `down`: it does not answer. `lossy`: it commits, and the answer is lost."""

    reports: list[TaskReport] = field(default_factory=list)
    down: bool = False
    lossy: bool = False
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, reports: list[TaskReport]) -> int:
        if self.down:
            raise Unavailable("the host does not answer")
        async with self.arrived:
            self.reports.extend(reports)
            self.arrived.notify_all()
        if self.lossy:
            self.lossy = False
            raise Unavailable("the answer was lost")
        return len(reports)

    def settled(self) -> dict[Key, list[TaskReport]]:
        """Reports as a host applies them: by attempt, each revision once and only newer ones."""
        applied: dict[Key, list[TaskReport]] = {}
        for report in self.reports:
            row = applied.setdefault((int(report.task_id), report.attempt), [])
            if not row or report.revision > row[-1].revision:
                row.append(report)
        return applied

    def states(self, key: Key) -> list[TaskState]:
        return [report.status for report in self.settled().get(key, [])]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self.arrived:
            await self.arrived.wait_for(condition)

    async def until_ended(self, key: Key) -> TaskReport:
        await self.until(lambda: any(state in ENDED for state in self.states(key)))
        return self.settled()[key][-1]


FACTS = NodeFacts(
    cores=8,
    memory_bytes=16 << 30,
    numa=(NumaNode(0, (0, 1, 2, 3), 8 << 30), NumaNode(1, (4, 5, 6, 7), 8 << 30)),
    gpus=(Gpu(0, "GPU-a", "A", 1 << 30), Gpu(1, "GPU-b", "A", 1 << 30)),
    shared_storage=True,
)


def settings_in(folder: Path) -> TaskSettings:
    return TaskSettings(
        shared_dir=folder / "shared",
        local_temp_dir=folder / "local",
        additional_mounts=(),
        default_working_dir="/shared",
        tasks_privileged=False,
        user=UserIds(0, 0),
    )


def execute(task_id: int = 7, attempt: int = 1, **fields: Any) -> Order:
    fields = {"order_id": task_id * 10 + attempt, "command": "true", "container_name": "base", **fields}
    return Order(kind=OrderKind.EXECUTE, task_id=str(task_id), attempt=attempt, **fields)


def execute_vps(task_id: int = 7, attempt: int = 1, **fields: Any) -> Order:
    """An order for a VPS without SSH."""
    return execute(task_id, attempt, command="", session=VpsOrder(hostname="lab"), **fields)


def order(kind: OrderKind, task_id: int = 7, attempt: int = 1, order_id: int = 0) -> Order:
    return Order(kind=kind, task_id=str(task_id), attempt=attempt, order_id=order_id)


@dataclass
class World:
    """One life of the agent's process."""

    agent: Agent
    engine: MachineEngine
    book: MortalBook
    death: Death
    running: "asyncio.Task[None]"
    starts: StartRow

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that no report announces."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.005)

    async def obey(self, *orders: Order) -> list[str | None]:
        """Give orders; return the refusals."""
        return [answer.detail for answer in await self.agent.take_orders(list(orders))]


@asynccontextmanager
async def process(
    folder: Path,
    machine: Machine,
    host: RecordingHost,
    death: Death | None = None,
    *,
    open_engine: Callable[[MachineEngine], Awaitable[MachineEngine]] | None = None,
    keeping: KeepingRules = KeepingRules(),  # noqa: B008 - frozen
    others: Mapping[str, Opener] = MappingProxyType({}),
) -> AsyncIterator[World]:
    """Run an agent over the machine; leaving the context is a kill -9 of its process.

    `others`: further engines of its node, by their names.
    """
    death = death or Death()
    engine = MachineEngine(machine, death)
    book = MortalBook(folder / "journal", death)

    async def opened() -> MachineEngine:
        return engine if open_engine is None else await open_engine(engine)

    starts = StartRow()
    parts = AgentParts(
        {DOCKER: opened, **others}, settings_in(folder), lambda: FACTS, host.take, keeping, starts
    )
    agent = Agent(parts, book)
    running = asyncio.ensure_future(agent.run())
    world = World(agent, engine, book, death, running, starts)
    try:
        await asyncio.sleep(0)
        yield world
    finally:
        death.at = None
        death.happened.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        book.close()


async def until_dead_or_done(world: World, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, unless the process dies before; raises what went wrong without a death."""
    doing = asyncio.ensure_future(work)
    death = asyncio.ensure_future(world.death.happened.wait())
    await asyncio.wait({doing, death}, return_when=asyncio.FIRST_COMPLETED)
    for each in (doing, death):
        each.cancel()
    outcome, _ = await asyncio.gather(doing, death, return_exceptions=True)
    if isinstance(outcome, Exception) and not world.death.happened.is_set():
        raise outcome
