"""A runner that lost its journal: what its engine still runs of current attempts is taken up again."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.wire.messages import AttemptState, Heartbeat
from support.host.control import Room, control_room
from support.runner.agent_world import RecordingHost, execute, process
from support.runner.machine_engine import Machine

Scenario = Callable[[Room], Coroutine[Any, Any, None]]


def play(folder: Path, scenario: Scenario) -> None:
    async def run() -> None:
        async with control_room(folder) as room:
            await room.join()
            await scenario(room)

    asyncio.run(run())


def stray(task_id: int, attempt: int = 1) -> AttemptState:
    return AttemptState(
        task_id=str(task_id), attempt=attempt, status=TaskState.RUNNING, revision=0, stray=True
    )


def test_the_order_of_a_stray_of_the_current_attempt_is_given_again(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.submit()
        await room.accept_orders()
        await room.report(task_id, TaskState.RUNNING, 1)
        await room.report(task_id, TaskState.PAUSED, 2)
        await room.report(task_id, TaskState.RUNNING, 3)
        assert await room.beat(attempts=[stray(task_id)]) == []
        (again,) = room.control.runners.orders_for("n1", 10)
        assert (again.kind, again.attempt, again.command) == (OrderKind.EXECUTE, 1, "true")
        await room.beat(attempts=[stray(task_id)])
        assert room.control.runners.orders_for("n1", 10) == [again], "once is enough"
        await room.accept_orders()
        await room.report(task_id, TaskState.RUNNING, 1)
        await room.report(task_id, TaskState.COMPLETED, 2)
        assert await room.state(task_id) is TaskState.COMPLETED

    play(tmp_path, scenario)


def test_a_stray_that_was_to_be_killed_is_killed(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.submit()
        await room.accept_orders()
        await room.report(task_id, TaskState.RUNNING, 1)
        await room.control.tasks.kill(task_id)
        await room.accept_orders()
        await room.beat(attempts=[stray(task_id)])
        kinds = [order.kind for order in room.control.runners.orders_for("n1", 10)]
        assert kinds == [OrderKind.EXECUTE, OrderKind.KILL]

    play(tmp_path, scenario)


def test_a_stray_of_an_old_attempt_is_ended(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.submit()
        await room.accept_orders()
        (unwanted,) = await room.beat(attempts=[stray(task_id), stray(task_id, attempt=9)])
        assert unwanted.attempt == 9

    play(tmp_path, scenario)


def test_nothing_is_missing_from_a_list_that_is_not_complete_yet(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.submit()
        (order_id,) = [order.order_id for order in room.control.runners.orders_for("n1", 10)]
        await room.accept_orders()
        await room.report(task_id, TaskState.RUNNING, 1)
        for complete, state in ((False, TaskState.RUNNING), (True, TaskState.FAILED)):
            room.beats += 1
            beat = Heartbeat(revision=room.beats, boot_id="boot-1", orders_seen=order_id, complete=complete)
            await room.control.runners.heartbeat("n1", beat)
            assert await room.state(task_id) is state

    play(tmp_path, scenario)


def test_a_runner_without_its_journal_takes_up_what_it_is_told_and_starts_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine = Machine()
        async with process(tmp_path, machine, RecordingHost()) as first:
            await first.obey(execute())
            await first.until(lambda: "wait" in first.death.names)
        (tmp_path / "journal").unlink()
        host = RecordingHost()
        async with process(tmp_path, machine, host) as second:
            await second.until(lambda: second.agent.knows_its_engines)
            (shown,) = second.agent.attempts()[0]
            assert shown.stray
            assert await second.obey(execute()) == [None]
            await second.until(lambda: "wait" in second.death.names)
            (shown,) = second.agent.attempts()[0]
            assert not shown.stray
            await machine.finish((7, 1), 0)
            assert (await host.until_ended((7, 1))).status is TaskState.COMPLETED
        assert machine.starts[7, 1] == 1

    asyncio.run(scenario())
