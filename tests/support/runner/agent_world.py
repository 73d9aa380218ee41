"""An agent on a `Machine` that can be killed at any step, and a host that takes its reports."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.resources import Gpu, NumaNode
from kohakuriver.models.transitions import ENDED
from kohakuriver.runner.agent.agent import Agent
from kohakuriver.runner.agent.agent_parts import AgentParts
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.life.rules import KeepingRules
from kohakuriver.runner.agent.order_spec import NodeFacts, TaskSettings
from kohakuriver.runner.agent.start_row import StartRow
from kohakuriver.runner.engines.contract.spec import DOCKER, UserIds
from kohakuriver.runner.engines.engines import Opener
from kohakuriver.wire.messages import Order, TaskReport, VpsOrder
from support.runner.machine_engine import Dead, Death, Key, Machine, MachineEngine

DEADLINE_SECONDS = 20.0


def defect_of(ended: "asyncio.Task[None] | None") -> BaseException | None:
    """What ended a job that was to run for ever, unless it was death."""
    if ended is None or ended.cancelled():
        return None
    error = ended.exception() or AssertionError(f"{ended} returned")
    if isinstance(error, BaseExceptionGroup):
        return error.split(Dead)[1]
    return None if isinstance(error, Dead) else error


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
