"""A node that this host cannot call gets no work, and what it was given is not held by it for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import AttemptState
from support.host.control import Room, control_room

NOT_REACHED = "the host cannot reach its runner at 10.0.0.9:8001"
CHECK_SECONDS = 0.05


def in_room(
    folder: Path, scenario: Callable[[Room], Awaitable[None]], check_seconds: float = CHECK_SECONDS
) -> None:
    async def run() -> None:
        async with control_room(folder, check_seconds) as room:
            await scenario(room)

    asyncio.run(run())


async def until_state(room: Room, task_id: TaskId, state: TaskState) -> None:
    async def beat_until() -> None:
        while await room.state(task_id) is not state:
            await room.beat()
            await asyncio.sleep(0.05)

    await asyncio.wait_for(beat_until(), 30)


def closed_reason(room: Room, node: str = "n1") -> str:
    return room.control.nodes.openness()[node][1]


def listed(task_id: TaskId, status: TaskState, attempt: int = 1) -> AttemptState:
    return AttemptState(task_id=str(task_id), attempt=attempt, status=status, revision=0)


def test_a_node_gets_no_work_before_it_has_answered_a_call(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        called: list[str] = []
        room.control.runners.on_registered = called.append
        await room.join("n1")
        assert called == ["n1"]
        task_id = await room.submit("n1")
        assert await room.state(task_id) is TaskState.PENDING
        assert "call" in closed_reason(room)
        await room.control.runners.got_through("n1")
        assert await room.state(task_id) is TaskState.ASSIGNING
        # The same boot is not closed again while it is called anew.
        await room.register("n1")
        await room.beat("n1")
        assert closed_reason(room) == ""
        await room.register("n1", boot_id="boot-2")
        assert room.control.nodes.snapshots()[0].row.registration is not None

    in_room(tmp_path, scenario, 10)


def test_a_node_that_cannot_be_called_says_so_and_gets_no_work(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        await room.control.runners.not_reached("n1", NOT_REACHED)
        assert NOT_REACHED in room.control.nodes.snapshots()[0].faults
        task_id = await room.submit("n1")
        (reason,) = room.control.tasks.pending_reasons(await room.control.tasks.find(task_id))
        assert NOT_REACHED in reason[1]
        await room.control.runners.got_through("n1")
        assert room.control.nodes.snapshots()[0].faults == ()
        assert await room.state(task_id) is TaskState.ASSIGNING

    in_room(tmp_path, scenario, 10)


def test_a_task_whose_order_does_not_get_through_runs_elsewhere_under_another_number(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        task_id = await room.submit(None)
        assert (await room.control.tasks.find(task_id)).assigned_node == "n1"
        await room.join("n2")
        await room.control.runners.not_reached("n1", NOT_REACHED)
        held = await room.control.tasks.find(task_id)
        assert NOT_REACHED in room.control.tasks.pending_reasons(held)[0][1]
        await asyncio.wait_for(_moved(room, task_id), 30)
        moved = await room.control.tasks.find(task_id)
        assert (moved.state, moved.attempt.number, moved.assigned_node) == (TaskState.ASSIGNING, 2, "n2")
        # Should the order have arrived after all, what came of it is ended and counts for nothing.
        await room.report(task_id, TaskState.COMPLETED, 1, attempt=1, node="n1")
        assert await room.state(task_id) is TaskState.ASSIGNING
        assert await room.beat("n1", [listed(task_id, TaskState.RUNNING)]) != []

    in_room(tmp_path, scenario)


async def _moved(room: Room, task_id: TaskId) -> None:
    while (await room.control.tasks.find(task_id)).assigned_node != "n2":
        await room.beat("n1")
        await room.beat("n2")
        await asyncio.sleep(0.05)


def test_an_order_that_arrived_though_its_answer_did_not_is_not_given_to_another(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        task_id = await room.submit("n1")
        await room.control.runners.not_reached("n1", NOT_REACHED)
        await room.beat("n1", [listed(task_id, TaskState.ASSIGNING)])
        assert room.control.runners.orders_for("n1", 10) == []
        await room.report(task_id, TaskState.RUNNING, 1)
        assert (await room.control.tasks.find(task_id)).attempt.number == 1

    in_room(tmp_path, scenario, 10)


def test_a_kill_ends_at_once_what_no_node_was_heard_to_take(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        task_id = await room.submit("n1")
        await room.control.runners.not_reached("n1", NOT_REACHED)
        await room.control.tasks.kill(task_id)
        assert await room.state(task_id) is TaskState.KILLED
        assert room.control.runners.orders_for("n1", 10) == []

    in_room(tmp_path, scenario, 10)


def test_a_kill_that_was_asked_for_before_the_port_closed_ends_the_task_as_well(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        task_id = await room.submit("n1")
        await room.control.tasks.kill(task_id)
        assert await room.state(task_id) is TaskState.ASSIGNING
        await room.control.runners.not_reached("n1", NOT_REACHED)
        await until_state(room, task_id, TaskState.KILLED)

    in_room(tmp_path, scenario)


@pytest.mark.parametrize("move", [False, True], ids=["killed", "moved by a drain"])
def test_a_kill_that_cannot_be_sent_goes_with_the_answer_to_a_heartbeat(move: bool, tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        task_id = await room.submit("n1", retries=1)
        await room.accept_orders()
        await room.report(task_id, TaskState.RUNNING, 1)
        if move:
            await room.control.nodes.drain("n1", True, "ada")
        else:
            await room.control.tasks.kill(task_id)
        running = [AttemptState(task_id=str(task_id), attempt=1, status=TaskState.RUNNING, revision=1)]
        assert await room.beat("n1", running) == []
        assert [order.kind for order in room.control.runners.kills_for("n1", 10)] == [OrderKind.KILL]
        await room.control.runners.not_reached("n1", NOT_REACHED)
        (wanted,) = await room.beat("n1", running)
        assert (wanted.task_id, wanted.attempt) == (str(task_id), 1)
        await room.report(task_id, TaskState.KILLED, 2)
        assert await room.state(task_id) is (TaskState.PENDING if move else TaskState.KILLED)

    in_room(tmp_path, scenario, 10)
