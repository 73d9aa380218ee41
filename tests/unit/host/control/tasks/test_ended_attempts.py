"""What an attempt ended with is kept: as its node told it, or as the host gave it up."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.nodes import heartbeats
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from support.host.control import Room, control_room

S = TaskState


def play(folder: Path, scenario: Callable[[Room], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with control_room(folder) as room:
            await room.join("n1")
            await scenario(room)

    asyncio.run(run())


async def begun(room: Room, **fields: Any) -> TaskId:
    task_id = await room.submit(node=None, **fields)
    await room.accept_orders()
    return task_id


async def kept(room: Room, task_id: TaskId, number: int = 1) -> Attempt:
    attempt = await room.control.tasks.find_attempt(task_id, number)
    assert attempt is not None
    return attempt


def test_a_task_that_ended_has_its_attempt_in_both_places(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await begun(room)
        await room.report(task_id, S.RUNNING, 1)
        assert await room.control.tasks.find_attempt(task_id, 1) is None
        await room.report(task_id, S.FAILED, 2, exit_code=3, stdout_bytes=9, stderr_bytes=0, message="bad")
        attempt = await kept(room, task_id)
        assert (attempt.end, attempt.exit_code, attempt.message) == (S.FAILED, 3, "bad")
        assert (await room.control.tasks.find(task_id)).attempt == attempt

    play(tmp_path, scenario)


def test_an_attempt_whose_node_fell_silent_ended_as_lost(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await begun(room, retries=1)
        await room.report(task_id, S.RUNNING, 1, image_digest="sha256:1")
        before = (await room.control.tasks.find(task_id)).attempt
        await room.control.loop.call(lambda turn: heartbeats.node_silent(turn, "n1"))
        attempt = await kept(room, task_id)
        assert (attempt.end, attempt.message) == (S.LOST, "node n1 is silent")
        assert attempt.completed_at is not None
        assert attempt == before.ended(S.LOST, attempt.completed_at, attempt.message)
        after = await room.control.tasks.find(task_id)
        assert (after.attempt.number, after.attempt.stdout_path) == (1, before.stdout_path)
        assert (after.assigned_node, after.attempt.started_at, after.attempt.image_digest) == (
            None,
            None,
            None,
        )

    play(tmp_path, scenario)


@pytest.mark.parametrize("runs", [True, False])
def test_an_end_that_another_attempt_follows_is_kept_as_it_was_told(tmp_path: Path, runs: bool) -> None:
    async def scenario(room: Room) -> None:
        task_id = await begun(room, retries=1)
        if runs:
            await room.report(task_id, S.RUNNING, 1)
        await room.report(
            task_id, S.FAILED, 2, exit_code=137, stdout_bytes=5, lost_to_system=True, message="engine gone"
        )
        assert (await room.control.tasks.find(task_id)).attempt.number == 2
        attempt = await kept(room, task_id)
        assert (attempt.node, attempt.revision, attempt.end) == ("n1", 2, S.FAILED)
        assert (attempt.exit_code, attempt.stdout_bytes, attempt.message) == (137, 5, "engine gone")

    play(tmp_path, scenario)


def test_an_attempt_that_its_node_could_not_begin_is_kept_as_failed(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await begun(room)
        await room.report(task_id, S.FAILED, 1, never_began=True, message="no image store")
        attempt = await kept(room, task_id)
        assert (attempt.end, attempt.started_at, attempt.message) == (S.FAILED, None, "no image store")

    play(tmp_path, scenario)


def test_what_was_never_on_a_node_has_no_attempt_to_keep(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.submit(node=None, required_cores=64)
        await room.control.tasks.kill(task_id)
        assert await room.state(task_id) is S.KILLED
        for number in (0, 1):
            assert await room.control.tasks.find_attempt(task_id, number) is None

    play(tmp_path, scenario)
