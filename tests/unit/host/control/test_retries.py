"""Tasks that ask for retries: after which ends another attempt follows, and what becomes of the old one."""

from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.nodes import heartbeats
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import AttemptState
from support.host.control import Room, play

S = TaskState


async def running(room: Room, nodes: tuple[str, ...] = ("n1", "n2"), **fields: Any) -> TaskId:
    """A task that runs on n1, the other nodes beside it; no target, so it can move."""
    await room.join(nodes[0])
    task_id = await room.begin(node=fields.pop("node", None), **fields)
    for name in nodes[1:]:
        await room.join(name)
    return task_id


async def fall_silent(room: Room, name: str = "n1") -> None:
    await room.control.loop.call(lambda turn: heartbeats.node_silent(turn, name))


async def history(room: Room, task_id: TaskId) -> list[tuple[str, int]]:
    return [(event.kind, event.attempt) for event in await room.control.tasks.history(task_id)]


def test_a_task_of_a_silent_node_begins_again_elsewhere_and_the_old_attempt_is_ended(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=1)
        await fall_silent(room)
        task = await room.control.tasks.find(task_id)
        assert (task.state, task.assigned_node, task.attempt.number) == (S.ASSIGNING, "n2", 2)
        assert task.retries_used == 1
        assert (await history(room, task_id))[-3:] == [("node_silent", 1), ("retried", 1), ("assigning", 2)]
        alive = AttemptState(task_id=str(task_id), attempt=1, status=S.RUNNING, revision=1)
        ended = await room.beat("n1", [alive], orders_seen=10**19)
        assert [(end.task_id, end.attempt) for end in ended] == [(str(task_id), 1)]
        await room.report(task_id, S.COMPLETED, 2, attempt=1, exit_code=0)
        assert await room.state(task_id) is S.ASSIGNING
        assert ("stale_report", 2) in await history(room, task_id)
        await room.accept_orders("n2")
        await room.report(task_id, S.RUNNING, 1, attempt=2, node="n2")
        await room.report(task_id, S.COMPLETED, 2, attempt=2, node="n2", exit_code=0)
        assert await room.state(task_id) is S.COMPLETED

    play(tmp_path, scenario)


def test_a_task_that_asks_for_no_retries_stays_lost(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room)
        await fall_silent(room)
        assert await room.state(task_id) is S.LOST

    play(tmp_path, scenario)


def test_when_the_retries_are_used_up_the_task_stays_lost(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=1)
        await fall_silent(room)
        await room.accept_orders("n2")
        await room.report(task_id, S.RUNNING, 1, attempt=2, node="n2")
        await fall_silent(room, "n2")
        task = await room.control.tasks.find(task_id)
        assert (task.state, task.assigned_node, task.retries_used) == (S.LOST, "n2", 1)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("status", "more", "after"),
    [
        (S.FAILED, {"exit_code": 3}, S.FAILED),
        (S.FAILED, {"exit_code": 255, "lost_to_system": True}, S.ASSIGNING),
        (S.FAILED, {"message": "the engine could not start it", "lost_to_system": True}, S.ASSIGNING),
        (S.KILLED_OOM, {"exit_code": 137}, S.KILLED_OOM),
        (S.KILLED, {}, S.KILLED),
        (S.COMPLETED, {"exit_code": 0}, S.COMPLETED),
    ],
)
def test_only_an_end_that_is_not_the_commands_own_is_retried(
    tmp_path: Path, status: TaskState, more: dict[str, Any], after: TaskState
) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=3)
        await room.report(task_id, status, 2, **more)
        assert await room.state(task_id) is after

    play(tmp_path, scenario)


def test_an_attempt_that_could_not_be_started_is_retried_before_it_ran(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        await room.join("n1")
        task_id = await room.submit(node="n1", retries=1)
        await room.accept_orders()
        await room.report(task_id, S.FAILED, 1, lost_to_system=True, message="the engine is down")
        assert (await room.control.tasks.find(task_id)).attempt.number == 2
        await room.accept_orders()
        await room.report(task_id, S.FAILED, 1, attempt=2, lost_to_system=True, message="still down")
        task = await room.control.tasks.find(task_id)
        assert (task.state, task.error_message, task.retries_used) == (S.FAILED, "still down", 1)

    play(tmp_path, scenario)


def test_a_workload_that_vanished_is_retried(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=1)
        await room.beat("n1", [], orders_seen=10**19)
        task = await room.control.tasks.find(task_id)
        assert (task.state, task.attempt.number) == (S.ASSIGNING, 2)
        assert ("vanished", 1) in await history(room, task_id)

    play(tmp_path, scenario)


def test_a_kill_forbids_a_retry(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=5)
        await room.control.tasks.kill(task_id)
        await fall_silent(room)
        assert await room.state(task_id) is S.LOST
        await room.report(task_id, S.FAILED, 2, lost_to_system=True)
        assert await room.state(task_id) is S.FAILED

    play(tmp_path, scenario)


def test_each_attempt_writes_to_a_folder_of_its_own(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, retries=1)
        first = (await room.control.tasks.find(task_id)).attempt.stdout_path
        await fall_silent(room)
        second = await room.control.tasks.find(task_id)
        assert first == f"/shared/logs/{task_id}/stdout.log"
        assert second.attempt.stdout_path == f"/shared/logs/{task_id}/attempt-2/stdout.log"
        [order] = room.control.runners.orders_for("n2", 10)
        assert (order.attempt, order.stderr_path) == (2, f"/shared/logs/{task_id}/attempt-2/stderr.log")

    play(tmp_path, scenario)


def test_a_task_that_was_lost_goes_to_another_node_while_one_has_room(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        # n1 is the larger one, and would be taken first by any other task.
        await room.join("n1", cores=8)
        task_id = await room.submit(node=None, retries=2)
        await room.join("n2", cores=1)
        await room.accept_orders()
        await room.report(task_id, S.FAILED, 1, lost_to_system=True)
        assert (await room.control.tasks.find(task_id)).assigned_node == "n2"
        await room.accept_orders("n2")
        await room.report(task_id, S.FAILED, 1, attempt=2, node="n2", lost_to_system=True)
        assert (await room.control.tasks.find(task_id)).assigned_node == "n1"

    play(tmp_path, scenario)


def test_a_lost_task_goes_back_to_its_node_when_no_other_has_room(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await running(room, nodes=("n1",), retries=1)
        await room.report(task_id, S.FAILED, 2, lost_to_system=True)
        task = await room.control.tasks.find(task_id)
        assert (task.assigned_node, task.attempt.number) == ("n1", 2)

    play(tmp_path, scenario)


def test_a_restarted_host_knows_how_many_retries_are_left(tmp_path: Path) -> None:
    ids: list[TaskId] = []

    async def before(room: Room) -> None:
        ids.append(await running(room, retries=2))
        await fall_silent(room)

    async def after(room: Room) -> None:
        task = await room.control.tasks.find(ids[0])
        assert (task.spec.retries, task.retries_used, task.previous_node) == (2, 1, "n1")

    play(tmp_path, before)
    play(tmp_path, after)
