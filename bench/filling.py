"""A store with history, written before the host opens it."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from kohakuriver.host.store.records import Changes
from kohakuriver.host.store.store import open_store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskIdGenerator
from kohakuriver.models.tasks import Task, TaskSpec

_PER_COMMIT = 5_000
_ENDINGS = (TaskState.COMPLETED,) * 8 + (TaskState.FAILED, TaskState.KILLED)


def fill_with_tasks(db_file: Path, count: int) -> None:
    """Put ended tasks into the store, made if missing."""
    asyncio.run(_fill(db_file, count))


async def _fill(db_file: Path, count: int) -> None:
    store = open_store(db_file)
    try:
        tasks = list(_ended_tasks(count))
        for start in range(0, count, _PER_COMMIT):
            changes = Changes(new_tasks={task.id: task for task in tasks[start : start + _PER_COMMIT]})
            await store.write(partial(apply_changes, changes=changes))
    finally:
        store.close()


def _ended_tasks(count: int) -> Iterator[Task]:
    began = datetime.now(UTC) - timedelta(days=30)
    ids = TaskIdGenerator(0)
    for number in range(count):
        at = began + timedelta(seconds=20 * number)
        task_id = ids.next(int(at.timestamp() * 1000))
        yield Task(
            id=task_id,
            spec=TaskSpec(
                "python",
                ("train.py", "--seed", str(number)),
                env_vars=(("RUN", str(number)),),
                required_cores=4,
                required_memory_bytes=8 << 30,
                name=f"train-{number}" if number % 4 == 0 else None,
            ),
            state=_ENDINGS[number % len(_ENDINGS)],
            owner="admin",
            submitted_at=at,
            attempt=1,
            revision=2,
            assigned_node=f"bench-{number % 1000:04d}",
            exit_code=0 if number % 10 < 8 else 1,
            started_at=at + timedelta(seconds=1),
            completed_at=at + timedelta(seconds=15),
            stdout_path=f"/mnt/cluster-share/logs/{task_id}/stdout.log",
            stderr_path=f"/mnt/cluster-share/logs/{task_id}/stderr.log",
            stdout_bytes=4096,
            stderr_bytes=0,
        )
