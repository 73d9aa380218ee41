"""What the runner says of attempts that the system lost, and what it holds until it can be done."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import EngineFault, InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.runner.agent.life import attempt_life
from kohakuriver.runner.agent.start_row import MOST_FAILURES
from kohakuriver.runner.engines.contract.engine import ExitResult
from kohakuriver.runner.engines.contract.faults import (
    EngineFull,
    LostByEngine,
    NodeFault,
    NoDiskSpace,
    RegistryUnavailable,
    StorageUnavailable,
)
from support.runner.agent_world import RecordingHost, execute, order, process
from support.runner.machine_engine import T0, Machine, MachineEngine

KEY = (7, 1)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


@pytest.mark.parametrize(
    ("error", "is_lost", "never_began"),
    [
        (Unavailable("sandboxes cannot be made: the engine refuses"), True, True),
        (StorageUnavailable("the folder of the node takes nothing now"), True, True),
        (EngineFull("the engine's disk is full"), True, True),
        (NodeFault("the engine lacks its docker-init program"), False, True),
        (LostByEngine("the engine was restarted while it started the task, and lost it"), True, False),
        (EngineFault("the command was not found in the image"), False, False),
        (RegistryUnavailable("the registry is busy"), True, False),
    ],
)
def test_a_failed_start_says_whose_doing_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: KohakuRiverError,
    is_lost: bool,
    never_began: bool,
) -> None:
    monkeypatch.setattr(attempt_life, "ENGINE_PATIENCE_SECONDS", -1.0)

    async def scenario() -> None:
        host = RecordingHost()
        async with process(tmp_path, Machine(), host) as world:
            world.engine.failing["create"] = error
            for task_id in range(1, MOST_FAILURES + 1):
                await world.obey(execute(task_id))
                report = await host.until_ended((task_id, 1))
                assert (report.status, report.message) == (TaskState.FAILED, str(error))
                assert (report.lost_to_system, report.never_began) == (is_lost, never_began)
            assert (world.starts.fault is not None) is never_began, "it counts against the node"

    run(scenario())


@pytest.mark.parametrize(("step", "never_began"), [("create", True), ("start", False)])
def test_a_runner_that_breaks_before_it_starts_a_task_never_began_it(
    tmp_path: Path, step: str, never_began: bool
) -> None:
    """Once a start is under way nobody knows, and the command may not run twice."""

    async def scenario() -> None:
        host = RecordingHost()
        async with process(tmp_path, Machine(), host) as world:
            world.engine.failing[step] = KeyError("defect")
            await world.obey(execute())
            report = await host.until_ended(KEY)
            assert "the runner failed" in (report.message or "")
            assert (report.lost_to_system, report.never_began) == (True, never_began)

    run(scenario())


def test_without_room_an_attempt_waits_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_life, "ENGINE_PATIENCE_SECONDS", -1.0)

    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing["create"] = NoDiskSpace("the disk is full")
            await world.obey(execute())
            await world.until(lambda: world.death.names.count("create") >= 2)
            assert host.reports == []
            world.engine.failing.clear()
            assert (await host.until_ended(KEY)).status is TaskState.COMPLETED

    run(scenario())


def test_an_attempt_that_waits_for_room_can_be_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = RecordingHost()
        async with process(tmp_path, Machine(), host) as world:
            world.engine.failing["create"] = NoDiskSpace("the disk is full")
            await world.obey(execute())
            await world.until(lambda: "create" in world.death.names)
            await world.obey(order(OrderKind.KILL))
            assert (await host.until_ended(KEY)).status is TaskState.KILLED

    run(scenario())


@pytest.mark.parametrize("is_killed", [False, True])
def test_an_end_that_a_restart_of_the_engine_brought_is_lost_unless_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    async def fallen(self: MachineEngine, spec: object) -> ExitResult:
        if is_killed:
            async with asyncio.timeout(20):
                while "stop" not in self._death.names:
                    await asyncio.sleep(0.005)
        return ExitResult(137, False, T0, T0, 0, 0, "the engine was restarted", lost_to_system=True)

    monkeypatch.setattr(MachineEngine, "wait", fallen)

    async def scenario() -> None:
        host = RecordingHost()
        async with process(tmp_path, Machine(), host) as world:
            await world.obey(execute())
            if is_killed:
                await host.until(lambda: TaskState.RUNNING in host.states(KEY))
                await world.obey(order(OrderKind.KILL))
            report = await host.until_ended(KEY)
            if is_killed:
                assert (report.status, report.lost_to_system) == (TaskState.KILLED, False)
            else:
                assert (report.status, report.lost_to_system) == (TaskState.FAILED, True)
                assert "the engine was restarted" in (report.message or "")

    run(scenario())


def test_an_end_of_its_own_is_not_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = RecordingHost()
        async with process(tmp_path, Machine(exits={7: 3}), host) as world:
            await world.obey(execute())
            report = await host.until_ended(KEY)
            assert (report.status, report.exit_code, report.lost_to_system) == (TaskState.FAILED, 3, False)

    run(scenario())


def test_a_workload_that_vanished_while_the_runner_was_unreachable_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute())
            await host.until(lambda: TaskState.RUNNING in host.states(KEY))
        machine.workloads.clear()
        async with process(tmp_path, machine, host):
            report = await host.until_ended(KEY)
            assert (report.status, report.lost_to_system) == (TaskState.FAILED, True)

    run(scenario())


@pytest.mark.parametrize("error", [EngineFault("no room for the sandboxes' image"), OSError(28, "full")])
def test_an_engine_that_cannot_be_opened_is_a_fault_and_is_tried_again(
    tmp_path: Path, error: Exception
) -> None:
    attempts = 0
    well = asyncio.Event()

    async def open_engine(engine: MachineEngine) -> MachineEngine:
        nonlocal attempts
        attempts += 1
        if not well.is_set():
            raise error
        return engine

    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost()
        async with process(tmp_path, machine, host, open_engine=open_engine) as world:
            assert await world.obey(execute()) == [None], "orders are taken in meanwhile"
            await world.until(lambda: str(error) in world.agent.faults())
            well.set()
            assert (await host.until_ended(KEY)).status is TaskState.COMPLETED
            assert attempts > 1

    run(scenario())


def test_settings_that_cannot_work_end_the_runner(tmp_path: Path) -> None:
    async def open_engine(_engine: MachineEngine) -> MachineEngine:
        raise InvalidInput("the subnet overlaps a route")

    async def scenario() -> None:
        async with process(tmp_path, Machine(), RecordingHost(), open_engine=open_engine) as world:
            await asyncio.wait([world.running], timeout=20)
            assert isinstance(world.running.exception(), ExceptionGroup)

    run(scenario())


def test_a_removal_that_breaks_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing["remove"] = ValueError("not JSON")
            await world.obey(execute())
            await world.until(lambda: "remove" in world.death.names)
            world.engine.failing.clear()
            await world.until(lambda: machine.workloads == {})
            await world.until(lambda: world.agent.attempts()[0] == [])

    run(scenario())
