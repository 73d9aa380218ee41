"""Specs in the store: what a batch asks for is there once, and a large one is not written with each step."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest

from kohakuriver.host.store import queries
from kohakuriver.host.store.records import Changes
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.spec.size import CutSpec, cut_for_list
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.tasks import Task, TaskSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LARGE = TaskSpec("python", arguments=("x" * 100_000,), env_vars=(("A", "ä" * 1000),), retries=2)


def task(number: int, spec: TaskSpec, batch: int | None = None) -> Task:
    return Task(
        TaskId(number), spec, TaskState.PENDING, "ada", NOW, batch_id=None if batch is None else TaskId(batch)
    )


def on_nodes(spec: TaskSpec, count: int) -> list[TaskSpec]:
    return [
        changed(spec, target=Target(f"n{index}", None, (index,)), required_gpus=(index,))
        for index in range(count)
    ]


def added(folder: Path, tasks: Sequence[Task]) -> Store:
    store = open_store(folder / "host.db")
    asyncio.run(
        store.write(partial(apply_changes, changes=Changes(new_tasks={task.id: task for task in tasks})))
    )
    return store


def stored_bytes(folder: Path) -> int:
    with sqlite3.connect(folder / "host.db") as connection:
        sums = [
            connection.execute(f"SELECT COALESCE(SUM(LENGTH(spec)), 0) FROM {table}").fetchone()[0]
            for table in ("tasks", "task_specs")
        ]
    return sum(sums)


@pytest.mark.parametrize("spec", [LARGE, TaskSpec("true")], ids=["large", "small"])
def test_a_batch_keeps_once_what_its_tasks_share(tmp_path: Path, spec: TaskSpec) -> None:
    batch = [task(10 + index, one, batch=9) for index, one in enumerate(on_nodes(spec, 200))]
    store = added(tmp_path, batch)
    try:
        assert asyncio.run(store.read(queries.live_tasks)) == batch
        listed = asyncio.run(store.read(partial(queries.list_tasks, wanted=queries.TaskFilter(limit=1000))))
        cut = [changed(one, spec=cut_for_list(one.spec)) for one in batch]
        assert sorted(listed, key=lambda one: one.id) == cut
        assert isinstance(cut[0].spec, CutSpec) == (spec is LARGE)
        one = asyncio.run(store.read(partial(queries.find_task, task_id=TaskId(15))))
        assert one == batch[5]
    finally:
        store.close()
    assert stored_bytes(tmp_path) < 110_000 + 200 * 200


def test_tasks_of_one_batch_that_ask_for_different_things_keep_them(tmp_path: Path) -> None:
    mixed = [
        task(10, LARGE, batch=9),
        task(11, changed(LARGE, command="other"), batch=9),
        task(12, TaskSpec("small"), batch=9),
        task(13, LARGE, batch=9),
    ]
    store = added(tmp_path, mixed)
    try:
        assert asyncio.run(store.read(queries.live_tasks)) == mixed
    finally:
        store.close()


def test_tasks_that_are_read_together_share_what_they_have_in_common(tmp_path: Path) -> None:
    """A state of 100,000 tasks fits into memory for that reason."""
    batch = [task(10 + index, one, batch=9) for index, one in enumerate(on_nodes(LARGE, 3))]
    equal = [task(20 + index, TaskSpec("sweep")) for index in range(3)]
    store = added(tmp_path, [*batch, *equal])
    try:
        found = asyncio.run(store.read(queries.live_tasks))
    finally:
        store.close()
    assert len({id(one.spec.arguments) for one in found[:3]}) == 1
    assert len({id(one.spec) for one in found[3:]}) == 1


def test_a_step_of_a_large_task_does_not_write_its_spec_again(tmp_path: Path) -> None:
    large = task(10, LARGE)
    store = added(tmp_path, [large])
    log = tmp_path / "host.db-wal"
    try:
        before = log.stat().st_size
        killed = Changes(changed_tasks={large.id: large.to(TaskState.KILLED)})
        asyncio.run(store.write(partial(apply_changes, changes=killed)))
        assert log.stat().st_size - before < 64 << 10
        found = asyncio.run(store.read(partial(queries.find_task, task_id=large.id)))
        assert found is not None
        assert (found.state, found.spec) == (TaskState.KILLED, LARGE)
    finally:
        store.close()


def test_more_batches_than_one_question_can_name_are_read(tmp_path: Path) -> None:
    many = [task(2 * index + 1, TaskSpec(f"c{index}"), batch=2 * index) for index in range(1, 1200)]
    store = added(tmp_path, many)
    try:
        found = asyncio.run(store.read(partial(queries.list_tasks, wanted=queries.TaskFilter(limit=5000))))
        assert sorted(found, key=lambda one: one.id) == many
        assert asyncio.run(store.read(queries.live_tasks)) == many
    finally:
        store.close()


def test_a_list_cuts_a_large_spec_of_an_older_host_too(tmp_path: Path) -> None:
    store = added(tmp_path, [task(10, LARGE)])
    try:
        with sqlite3.connect(tmp_path / "host.db") as connection:
            connection.execute("UPDATE tasks SET spec_id = NULL, spec = ?", (msgspec.json.encode(LARGE),))
        [found] = asyncio.run(store.read(partial(queries.list_tasks, wanted=queries.TaskFilter())))
        assert found.spec == cut_for_list(LARGE) != LARGE
        assert (found.spec.command, found.spec.required_cores) == (LARGE.command, LARGE.required_cores)
    finally:
        store.close()
