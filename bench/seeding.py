"""A store with a long past and a long queue, written in bulk before the host opens it.

Rows are made by the store's own code, once for each kind; what differs between tasks is put in column by
column, since a million records would take minutes to make.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kohakuriver.host.store import rows
from kohakuriver.host.store.records import TaskEvent
from kohakuriver.host.store.specs import keep_specs
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId, TaskIdGenerator
from kohakuriver.models.tasks import Task, TaskSpec

PAST_DAYS = 300
_ENDINGS = (TaskState.COMPLETED,) * 17 + (TaskState.FAILED,) * 2 + (TaskState.KILLED,)
_EVENTS = {
    TaskState.PENDING: (EventKind.SUBMITTED,),
    **{
        state: (
            EventKind.SUBMITTED,
            EventKind.ASSIGNING,
            EventKind.RUNNING,
            EventKind.of_step(state),
        )
        for state in set(_ENDINGS)
    },
}
OWNERS = ("admin", *(f"user-{number:02d}" for number in range(40)))
QUEUED_CORES = 6
"""Of the nodes' 64, so that ten run on each."""


@dataclass(frozen=True)
class Seed:
    """How many tasks have ended, how many wait, and how many different demands those have."""

    past: int = 0
    queued: int = 0
    shapes: int = 20


def seed_store(db_file: Path, seed: Seed) -> None:
    """Make the database and fill it."""
    open_store(db_file).close()
    connection, now = sqlite3.connect(db_file, isolation_level=None), datetime.now(UTC)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        _insert(connection, "tasks", _task_rows(seed, now))
        _insert(connection, "task_events", _event_rows(seed, now))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _insert(connection: sqlite3.Connection, table: str, records: Iterator[dict[str, Any]]) -> None:
    first = next(records, None)
    if first is None:
        return
    columns = ", ".join(first)
    places = ", ".join("?" * len(first))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({places})"
    connection.execute(statement, tuple(first.values()))
    connection.executemany(statement, (tuple(record.values()) for record in records))


def _moments(seed: Seed, now: datetime) -> Iterator[tuple[int, TaskId, TaskState, datetime]]:
    """(number, id, state, time of submission) of all tasks: first the past, then the queue."""
    ids = TaskIdGenerator(0)
    step = timedelta(days=PAST_DAYS) / max(1, seed.past)
    for number in range(seed.past + seed.queued):
        if number < seed.past:
            at, state = now - timedelta(days=PAST_DAYS) + step * number, _ENDINGS[number % len(_ENDINGS)]
        else:
            at, state = now, TaskState.PENDING
        yield number, ids.next(int(at.timestamp() * 1000)), state, at


def _task_rows(seed: Seed, now: datetime) -> Iterator[dict[str, Any]]:
    specs: dict[int, TaskSpec] = {
        shape: TaskSpec(
            "python",
            ("train.py", "--config", f"experiments/{shape}.yaml", "--epochs", "30"),
            env_vars=(("RUN", str(shape)), ("OMP_NUM_THREADS", "4")),
            required_cores=QUEUED_CORES,
            required_memory_bytes=(1 << 30) + (shape << 20),
        )
        for shape in range(seed.shapes)
    }
    patterns: dict[tuple[int, TaskState], dict[str, Any]] = {}
    for number, task_id, state, at in _moments(seed, now):
        shape = number % seed.shapes
        pattern = patterns.get((shape, state))
        if pattern is None:
            task = _task(specs[shape], state, at)
            (kept,), _ = keep_specs([task])
            pattern = patterns[shape, state] = rows.task_row(task, kept)
        micros = rows.to_micros(at)
        assert micros is not None
        row = {**pattern, "id": task_id, "owner": OWNERS[number % len(OWNERS)], "submitted_at": micros}
        if state is not TaskState.PENDING:
            row |= {
                "assigned_node": f"bench-{number % 1000:04d}",
                "started_at": micros + 1_000_000,
                "completed_at": micros + 60_000_000,
                "stdout_path": f"/mnt/cluster-share/logs/{task_id}/stdout.log",
                "stderr_path": f"/mnt/cluster-share/logs/{task_id}/stderr.log",
                "name": f"train-{number}" if number % 4 == 0 else None,
            }
        yield row


def _task(spec: TaskSpec, state: TaskState, at: datetime) -> Task:
    if state is TaskState.PENDING:
        return Task(TaskId(0), spec, state, "admin", at)
    return Task(
        TaskId(0),
        spec,
        state,
        "admin",
        at,
        attempt=Attempt(
            1,
            "n",
            revision=2,
            started_at=at,
            stdout_bytes=4096,
            stderr_bytes=0,
            exit_code=0 if state is TaskState.COMPLETED else 1,
        ).ended(state, at, None),
        completed_at=at,
    )


def _event_rows(seed: Seed, now: datetime) -> Iterator[dict[str, Any]]:
    for _, task_id, state, at in _moments(seed, now):
        for step, kind in enumerate(_EVENTS[state]):
            yield rows.event_row(TaskEvent(task_id, at + timedelta(seconds=step), kind, min(step, 1)))
