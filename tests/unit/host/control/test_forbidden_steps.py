"""A step that the table forbids is a defect of the host: it tells its story, and harms no other command."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from kohakuriver.host.control.turn import Turn
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import TaskReport
from support.host.control import Room, control_room


def play(folder: Path, scenario: Callable[[Room], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with control_room(folder) as room:
            await room.join(cores=4)
            await scenario(room)

    asyncio.run(run())


def wrong_step(task_id: TaskId) -> Callable[[Turn], None]:
    """A handler that takes a step of the table and then one that is none."""

    def handler(turn: Turn) -> None:
        paused = turn.step(turn.state.tasks[task_id].to(TaskState.PAUSED), "on the way")
        turn.step(paused.to(TaskState.COMPLETED))

    return handler


def test_a_forbidden_step_is_logged_with_the_task_the_attempt_and_its_last_events(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.begin()
        with structlog.testing.capture_logs() as log, pytest.raises(Unavailable, match="internal error"):
            await room.control.loop.call(wrong_step(task_id))
        (line,) = [entry for entry in log if entry["event"] == "turn_failed"]
        told = {name: line[name] for name in ("task_id", "attempt", "node", "before", "after")}
        assert told == {
            "task_id": task_id,
            "attempt": 1,
            "node": "n1",
            "before": "paused",
            "after": "completed",
        }
        kinds = [event.split(": ", 1)[1] for event in line["history"]]
        assert kinds == ["submitted", "assigning (n1)", "running"]
        assert [event.split(": ", 1)[1] for event in line["undone"]] == ["paused (on the way)"]
        assert f"task {task_id}, attempt 1, on n1" in str(line["exc_info"])

    play(tmp_path, scenario)


def test_a_history_that_cannot_be_read_keeps_the_loop_from_nothing(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.begin()
        room.store.fail_reads(OSError("the disk is ill"), 1)
        with structlog.testing.capture_logs() as log, pytest.raises(Unavailable, match="internal error"):
            await room.control.loop.call(wrong_step(task_id))
        assert [entry["history"] for entry in log if entry["event"] == "turn_failed"] == [[]]
        assert await room.submit()

    play(tmp_path, scenario)


def test_the_other_commands_of_a_turn_with_a_forbidden_step_are_carried_out(tmp_path: Path) -> None:
    async def scenario(room: Room) -> None:
        task_id = await room.begin()
        answers = await asyncio.gather(
            room.submit(),
            room.control.loop.call(wrong_step(task_id)),
            room.control.tasks.pause(task_id),
            room.submit(),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [int, type(answers[1]), type(None), int]
        assert isinstance(answers[1], Unavailable)
        assert await room.state(task_id) is TaskState.RUNNING
        for made in (answers[0], answers[3]):
            assert isinstance(made, int)
            assert (await room.control.tasks.find(TaskId(made))).state is TaskState.ASSIGNING
        kinds = [event.kind for event in await room.control.tasks.history(task_id)]
        assert kinds == ["submitted", "assigning", "running", "pause_requested"]

    play(tmp_path, scenario)


def test_the_other_reports_of_a_batch_with_an_impossible_one_count(tmp_path: Path) -> None:
    def report(task_id: TaskId, status: TaskState, revision: int) -> TaskReport:
        return TaskReport(task_id=str(task_id), status=status, attempt=1, revision=revision)

    async def scenario(room: Room) -> None:
        first, second = [await room.begin() for _ in range(2)]
        await room.control.runners.apply_reports(
            "n1",
            [
                report(first, TaskState.PAUSED, 2),
                # A command task is never stopped.
                report(first, TaskState.STOPPED, 3),
                report(second, TaskState.COMPLETED, 2),
            ],
        )
        assert [await room.state(task_id) for task_id in (first, second)] == [
            TaskState.PAUSED,
            TaskState.COMPLETED,
        ]
        last = (await room.control.tasks.history(first))[-1]
        assert (last.kind, last.detail) == ("impossible_report", "a task cannot go from paused to stopped")

    play(tmp_path, scenario)
