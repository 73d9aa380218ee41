"""A task whose output is followed, without a control room: its record changes when the test says so."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from support.host.task_records import with_facts

ID = TaskId(4711)


class Watch:
    """A control room that knows one task, which ends when told to."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.past: dict[int, Attempt] = {}
        self.ended = asyncio.Event()

    async def wait_ended(self, task_id: TaskId, seconds: float) -> Task:
        await self.ended.wait()
        return self.task

    def live(self, task_id: TaskId) -> Task | None:
        return None if self.task.state in ENDED else self.task

    async def find(self, task_id: TaskId) -> Task:
        return self.task

    async def find_attempt(self, task_id: TaskId, number: int) -> Attempt | None:
        return self.past.get(number)

    def end(self, **facts: Any) -> None:
        self.task = with_facts(self.task, state=TaskState.COMPLETED, **facts)
        self.ended.set()


def running_task(folder: Path, **facts: Any) -> Task:
    task = Task(ID, TaskSpec("x"), TaskState.RUNNING, "alice", datetime.now(UTC), attempt=Attempt(0, "n1"))
    return with_facts(task, **{"stdout_path": str(folder / "logs" / str(ID) / "stdout.log"), **facts})


def write(folder: Path, data: bytes) -> Path:
    path = folder / "logs" / str(ID) / "stdout.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])
