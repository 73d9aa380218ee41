"""Standard input of attempts: each byte once, an end that is told, and no part that passes for all of it."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import Conflict, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.transitions import ENDED
from kohakuriver.runner.agent.life import attempt_input
from kohakuriver.runner.agent.life.attempt_input import AttemptInput
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.wire.messages import Order
from kohakuriver.wire.task_files import TaskFiles
from support.runner.agent_world import (
    DEADLINE_SECONDS,
    RecordingHost,
    World,
    execute,
    order,
    process,
    until_dead_or_done,
)
from support.runner.machine_engine import Death, Machine, Workload

KEY = (7, 1)
S = TaskState


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS * 2):
            await scenario

    asyncio.run(bounded())


def with_input(stdin: bytes) -> Order:
    return execute(command="", files=TaskFiles(command="cat", stdin=stdin))


STREAMED = execute(command="", files=TaskFiles(command="cat", stdin=b"", streams=True))


async def begun(world: World, host: RecordingHost) -> AttemptInput:
    """A task that runs and whose input is streamed."""
    assert await world.obey(STREAMED) == [None]
    await host.until(lambda: S.RUNNING in host.states(KEY))
    return world.agent.input_of(TaskId(7))


def test_what_comes_with_the_order_is_given_whole_with_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            assert await world.obey(with_input(b"two\nlines\n")) == [None]
            await world.until(lambda: KEY in machine.workloads and machine.workloads[KEY].input_ended)
            workload = machine.workloads[KEY]
            assert (workload.read, workload.spec.argv) == (b"two\nlines\n", ("cat",))
            await world.until(lambda: "settle_input" in world.death.names)
            await machine.finish(KEY, 0)
            assert (await host.until_ended(KEY)).status is S.COMPLETED

    run(scenario())


def test_a_command_that_ends_before_it_has_read_all_has_its_own_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(exits={7: 0}), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(with_input(b"never read"))
            assert (await host.until_ended(KEY)).status is S.COMPLETED

    run(scenario())


def test_an_engine_that_loses_the_input_ends_the_attempt_as_failed(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            world.engine.failing["write_input"] = Unavailable("the engine was restarted")
            await world.obey(with_input(b"lost"))
            end = await host.until_ended(KEY)
            assert (end.status, end.message) == (
                S.FAILED,
                "its standard input was cut off: the engine was restarted",
            )
            assert end.lost_to_system

    run(scenario())


def test_a_kill_during_input_is_a_kill(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await begun(world, host)
            await world.obey(order(OrderKind.KILL))
            assert (await host.until_ended(KEY)).status is S.KILLED

    run(scenario())


def test_who_sends_goes_on_where_it_stopped_and_each_byte_comes_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            taker = await begun(world, host)
            workload = machine.workloads[KEY]
            workload.reads.clear()
            with taker.sent_by("one"):
                cut_off = asyncio.create_task(taker.put("one", b"first "))
                await taker.news(0)
                # Its connection breaks while the command reads nothing.
                cut_off.cancel()
                await asyncio.wait([cut_off])
            workload.reads.set()
            with taker.sent_by("two"):
                assert taker.taken == len(b"first ")
                with pytest.raises(Conflict):
                    await taker.put("one", b"again ")
                await taker.put("two", b"second")
                taker.complete("two")
                await world.until(lambda: taker.is_over)
            assert (workload.read, workload.input_ended) == (b"first second", True)
            await machine.finish(KEY, 0)
            assert (await host.until_ended(KEY)).status is S.COMPLETED

    run(scenario())


def test_an_input_that_nobody_sends_any_more_fails_and_does_not_pass_for_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_input, "ABSENCE_SECONDS", 0.2)

    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            taker = await begun(world, host)
            with taker.sent_by("one"):
                await taker.put("one", b"a part")
                await asyncio.sleep(0.3)  # longer than one may be away; it is there
                assert not taker.is_over
            workload = machine.workloads[KEY]
            end = await host.until_ended(KEY)
            assert (end.status, "was gone" in (end.message or "")) == (S.FAILED, True)
            assert not workload.input_ended

    run(scenario())


def test_death_at_any_step_gives_all_of_the_input_or_a_failure_that_says_so(tmp_path: Path) -> None:
    steps = asyncio.run(_life_and_afterlife(tmp_path / "undying", None))
    assert steps > 15
    for at in range(1, steps + 1):
        asyncio.run(_life_and_afterlife(tmp_path / str(at), at))


async def _life_and_afterlife(folder: Path, at: int | None) -> int:
    """Run a task with input while the process dies at a step, and then in a process that does not."""
    folder.mkdir()
    machine, host, death = Machine(), RecordingHost(), Death(at)
    seen: list[Workload] = []

    async def live(world: World) -> None:
        await world.obey(with_input(b"content"))

        def is_far_enough() -> bool:
            seen.extend(machine.workloads.values())
            return bool(ENDED.intersection(host.states(KEY))) or any(each.input_ended for each in seen)

        await world.until(is_far_enough)
        if KEY in machine.workloads and seen[-1].state is WorkloadState.RUNNING and seen[-1].input_ended:
            await machine.finish(KEY, 0)
        await host.until_ended(KEY)

    async with asyncio.timeout(DEADLINE_SECONDS):
        async with process(folder, machine, host, death) as world:
            await until_dead_or_done(world, live(world))
        async with process(folder, machine, host) as world:
            await live(world)
    end = host.settled()[KEY][-1]
    assert sum(machine.starts.values()) <= 1
    if end.status is S.COMPLETED:
        assert (seen[-1].read, seen[-1].input_ended) == (b"content", True)
    else:
        assert "its standard input was cut off" in (end.message or ""), (at, end)
    return death.steps
