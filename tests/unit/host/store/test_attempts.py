"""Attempts that are over: kept with their ends, found by number, and made of old rows by the migration."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.host.control.state import load
from kohakuriver.host.store import queries
from kohakuriver.host.store.records import Changes
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from support.host.old_databases import make_old_database, task_row

S = TaskState
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OF_BEFORE: dict[TaskState, dict[str, Any]] = {
    S.PENDING_APPROVAL: {},
    S.REJECTED: {"completed_at": 5, "error_message": "no"},
    S.PENDING: {"attempt": 2, "left_node": "n1", "stdout_path": "/shared/2/out"},
    S.ASSIGNING: {"attempt": 1, "assigned_node": "n1"},
    S.RUNNING: {"attempt": 1, "assigned_node": "n1", "revision": 4, "started_at": 3},
    S.PAUSED: {"attempt": 1, "assigned_node": "n1", "started_at": 3},
    S.COMPLETED: {
        "attempt": 3,
        "assigned_node": "n2",
        "left_node": "n1",
        "revision": 7,
        "started_at": 3,
        "completed_at": 9,
        "stdout_path": "/shared/3/out",
        "stdout_bytes": 11,
        "stderr_bytes": 0,
        "exit_code": 0,
        "image_digest": "sha256:1",
    },
    S.FAILED: {
        "attempt": 1,
        "assigned_node": "n1",
        "completed_at": 9,
        "exit_code": 3,
        "error_message": "bad",
    },
    S.KILLED: {"attempt": 1, "completed_at": 9},
    S.KILLED_OOM: {"attempt": 1, "assigned_node": "n1", "completed_at": 9, "exit_code": 137},
    S.STOPPED: {
        "attempt": 2,
        "assigned_node": "n1",
        "started_at": 3,
        "completed_at": 9,
        "task_type": "vps",
        "session": json.dumps({"address": "172.30.0.9", "restore": "image"}).encode(),
    },
    S.LOST: {"attempt": 1, "assigned_node": "n1", "started_at": 3, "error_message": "silent"},
}
"""A task of each state, as the schema before the table had it."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "host.db"
    numbered = enumerate(OF_BEFORE.items(), 1)
    tasks = [task_row(number, state=state.value, **facts) for number, (state, facts) in numbered]
    make_old_database(path, "0008", tasks)
    return path


def test_each_task_of_before_opens_and_those_that_ended_on_a_node_have_their_attempt(old: Path) -> None:
    store = open_store(old)
    try:
        for number, (state, facts) in enumerate(OF_BEFORE.items(), 1):
            task = asyncio.run(store.read(partial(queries.find_task, task_id=TaskId(number))))
            assert task is not None
            newest = facts.get("attempt", 0)
            assert (task.state, task.attempt.number, task.assigned_node) == (
                state,
                newest,
                facts.get("assigned_node"),
            )
            kept = asyncio.run(store.read(partial(queries.find_attempt, task_id=task.id, number=newest)))
            ended_there = state in ENDED and "assigned_node" in facts
            assert kept == (task.attempt if ended_there else None), state
            earlier = partial(queries.find_attempt, task_id=task.id, number=newest - 1)
            assert asyncio.run(store.read(earlier)) is None
    finally:
        store.close()


def test_what_an_attempt_of_before_ended_with_is_what_its_task_had(old: Path) -> None:
    completed, stopped = list(OF_BEFORE).index(S.COMPLETED) + 1, list(OF_BEFORE).index(S.STOPPED) + 1
    store = open_store(old)
    try:
        first = asyncio.run(store.read(partial(queries.find_attempt, task_id=TaskId(completed), number=3)))
        vps = asyncio.run(store.read(partial(queries.find_attempt, task_id=TaskId(stopped), number=2)))
    finally:
        store.close()
    assert first == Attempt(
        3,
        "n2",
        revision=7,
        started_at=EPOCH + timedelta(microseconds=3),
        completed_at=EPOCH + timedelta(microseconds=9),
        stdout_path="/shared/3/out",
        stdout_bytes=11,
        stderr_bytes=0,
        exit_code=0,
        image_digest="sha256:1",
        end=S.COMPLETED,
    )
    assert vps is not None
    assert (vps.address, vps.end) == ("172.30.0.9", S.STOPPED)


def test_work_of_before_goes_on_as_the_state_of_the_host(old: Path) -> None:
    store = open_store(old)
    try:
        state = asyncio.run(store.read(partial(load, cluster_id="c", known={})))
    finally:
        store.close()
    assert {task.state for task in state.tasks.values()} == set(OF_BEFORE) - ENDED | {S.STOPPED}
    waits = next(task for task in state.tasks.values() if task.state is S.PENDING)
    assert waits.attempt == Attempt(2, stdout_path="/shared/2/out")
    assert state.next_number(waits) == 3


def test_an_attempt_is_kept_once_and_goes_with_its_task(tmp_path: Path) -> None:
    ended = Attempt(1, "n1", exit_code=3).ended(S.FAILED, EPOCH, "bad")
    task = Task(TaskId(7), TaskSpec("x"), S.FAILED, "ada", EPOCH, attempt=ended, completed_at=EPOCH)
    store = open_store(tmp_path / "host.db")
    find = partial(queries.find_attempt, task_id=task.id, number=1)
    try:
        for changes in (Changes(new_tasks={task.id: task}), Changes(changed_tasks={task.id: task})):
            changes.ended_attempts[task.id, 1] = ended
            asyncio.run(store.write(partial(apply_changes, changes=changes)))
            assert asyncio.run(store.read(find)) == ended
        asyncio.run(store.write(partial(apply_changes, changes=Changes(deleted_tasks=[task.id]))))
        assert asyncio.run(store.read(find)) is None
    finally:
        store.close()
