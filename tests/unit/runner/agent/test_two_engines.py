"""Two engines under one agent: one that cannot be opened keeps nobody from the work of the other."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.order_spec import order_to_spec
from kohakuriver.runner.agent.records import Accepted
from kohakuriver.runner.engines.contract.processes import ExecRequest
from kohakuriver.runner.engines.contract.spec import DOCKER, WorkloadSpec
from kohakuriver.runner.engines.fake.fake_engine import FakeEngine
from kohakuriver.runner.engines.fake.machine import FakeMachine
from support.engines.labs import ignore
from support.runner.agent_world import (
    DEADLINE_SECONDS,
    FACTS,
    RecordingHost,
    World,
    execute,
    process,
    settings_in,
)
from support.runner.machine_engine import Machine, MachineEngine

SECOND = "second"
DOWN = "no daemon answers"
S = TaskState


class Node:
    """Docker, which is down until `docker_is_up` is set, and a second engine. Both outlive the agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docker = Machine()
        self.docker_is_up = asyncio.Event()
        self.second = FakeMachine()
        self.host = RecordingHost()

    def spec(self, task_id: int, engine: str, command: str = "sleep", *arguments: str) -> WorkloadSpec:
        order = execute(task_id, command=command, arguments=list(arguments))
        return replace(order_to_spec(order, FACTS, settings_in(self.folder)), engine=engine)

    async def accept(self, *specs: WorkloadSpec) -> None:
        """As an agent of before wrote it down."""
        book = DurableBook(self.folder / "journal")
        await book.write(*(Accepted(spec, 10 * spec.task_id) for spec in specs))
        book.close()

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[World]:
        async def open_docker(engine: MachineEngine) -> MachineEngine:
            if not self.docker_is_up.is_set():
                raise Unavailable(DOWN)
            return engine

        async def open_second() -> FakeEngine:
            return FakeEngine(self.second)

        others = {SECOND: open_second}
        async with process(
            self.folder, self.docker, self.host, open_engine=open_docker, others=others
        ) as world:
            yield world

    async def until_running(self, task_id: int) -> None:
        await self.host.until(lambda: S.RUNNING in self.host.states((task_id, 1)))


def play(tmp_path: Path, scenario: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * DEADLINE_SECONDS):
            await scenario(Node(tmp_path))

    asyncio.run(bounded())


def test_work_of_an_engine_is_recovered_and_reported_while_docker_is_down(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.accept(node.spec(7, SECOND, "sleep", "600"), node.spec(8, DOCKER))
        async with node.agent():
            await node.until_running(7)
        node.host.reports.clear()
        async with node.agent() as again:
            await again.until(lambda: SECOND in again.agent.engines.by_name())
            states = {entry.task_id: entry.status for entry in again.agent.attempts()[0]}
            assert states == {"7": S.RUNNING, "8": S.ASSIGNING}
            await again.until(lambda: again.agent.faults() == [DOWN])
            assert not again.agent.knows_its_engines, "what Docker holds beside its work is not known"
            node.second.workloads[TaskId(7)].kill()
            assert (await node.host.until_ended((7, 1))).exit_code == 137
            await again.until(lambda: node.second.workloads == {})
            assert node.host.states((8, 1)) == []
            node.docker_is_up.set()
            await node.until_running(8)
            assert (again.agent.faults(), again.agent.knows_its_engines) == ([], True)

    play(tmp_path, scenario)


def test_a_workload_is_served_by_its_own_engine(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.accept(node.spec(7, SECOND, "sleep", "600"), node.spec(8, DOCKER))
        async with node.agent() as world:
            await node.until_running(7)
            engine = world.agent.engines.of(TaskId(7))
            process = await engine.processes.open(TaskId(7), ExecRequest(("print", "hello")))
            piece = await process.read()
            assert piece is not None
            assert piece[1] == b"hello"
            await process.close()
            await world.until(lambda: world.agent.faults() == [DOWN])
            for task_id in (8, 99):
                with pytest.raises(Unavailable, match=DOWN):
                    world.agent.engines.of(TaskId(task_id))
            assert world.agent.engines.all() == [engine]
            node.docker_is_up.set()
            await node.until_running(8)
            assert world.agent.engines.of(TaskId(8)) is world.engine
            with pytest.raises(NotFound):
                await world.agent.engines.of(TaskId(7)).processes.open(TaskId(8), ExecRequest(("true",)))

    play(tmp_path, scenario)


def test_what_an_engine_holds_beside_the_journal_is_shown_and_ended_while_docker_is_down(
    tmp_path: Path,
) -> None:
    async def scenario(node: Node) -> None:
        spec = node.spec(9, SECOND, "sleep", "600")
        before = FakeEngine(node.second)
        await before.create(spec, ignore)
        await before.start(spec.task_id, 1)
        async with node.agent() as world:
            await world.until(lambda: world.agent.attempts()[0] != [])
            (shown,) = world.agent.attempts()[0]
            assert (shown.task_id, shown.stray) == ("9", True)
            assert isinstance(world.agent.engines.of(TaskId(9)), FakeEngine)
            await world.agent.end_attempts([shown])
            await world.until(lambda: node.second.workloads == {} and world.agent.attempts()[0] == [])

    play(tmp_path, scenario)


def test_work_of_an_engine_that_is_not_there_waits_and_is_reported(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        await node.accept(node.spec(7, "third"))
        node.docker_is_up.set()
        async with node.agent() as world:
            await world.until(lambda: world.agent.knows_its_engines)
            (fault,) = world.agent.faults()
            assert "needs the third engine" in fault
            assert [entry.task_id for entry in world.agent.attempts()[0]] == ["7"]

    play(tmp_path, scenario)
