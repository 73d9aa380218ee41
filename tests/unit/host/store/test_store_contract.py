"""What the host asks of a store holds for each: SQLite's, the model's, and the one that fails on demand."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select

from kohakuriver.host.store import queries, tables
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.records import Changes
from kohakuriver.host.store.sqlite.sqlite_store import open_store
from kohakuriver.host.store.store import DiskFault, Store
from kohakuriver.host.store.writes import apply_changes, put_meta
from kohakuriver.models.enums import TaskState, TaskType
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from support.host.failing_store import FailingStore
from support.model.host import MemoryStore

pytestmark = pytest.mark.anyio

_STORES: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: open_store(folder / "host.db"),
    "failing": lambda folder: FailingStore(open_store(folder / "host.db")),
    "memory": lambda _folder: MemoryStore(),
}


@pytest.fixture(params=_STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = _STORES[request.param](tmp_path)
    yield store
    store.close()


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[FailingStore]:
    store = FailingStore(open_store(tmp_path / "host.db"))
    yield store
    store.close()


def put(word: str) -> Callable[[Connection], None]:
    return partial(put_meta, key="word", value=word)


def word(connection: Connection) -> str | None:
    return connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == "word")).scalar()


async def test_what_is_written_is_read_and_takes_the_place_of_what_was_there(store: Store) -> None:
    assert await store.read(word) is None
    await store.write(put("one"))
    await store.write(put("two"), new_work=True)
    assert await store.read(word) == "two"


async def test_a_change_that_raises_leaves_nothing(store: Store) -> None:
    def half(connection: Connection) -> None:
        put("half")(connection)
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        await store.write(half)
    assert await store.read(word) is None
    await store.write(put("whole"))
    assert await store.read(word) == "whole"


async def test_what_the_database_refuses_leaves_nothing_and_is_no_fault_of_the_disk(store: Store) -> None:
    def twice(connection: Connection) -> None:
        put("one")(connection)
        connection.execute(insert(tables.meta), [{"key": "word", "value": "again"}])

    with pytest.raises(Unavailable) as refused:
        await store.write(twice)
    assert not isinstance(refused.value, DiskFault)
    assert store.write_fault is None
    assert await store.read(word) is None


async def test_changes_run_one_after_the_other(store: Store) -> None:
    def count(connection: Connection) -> int:
        number = int(word(connection) or 0) + 1
        put(str(number))(connection)
        return number

    numbers = await asyncio.gather(*(store.write(count) for _ in range(50)))
    assert sorted(numbers) == list(range(1, 51))


async def test_lists_hold_what_was_asked_for(store: Store) -> None:
    """Conditions that are to take no index are true of the same rows."""
    states = (TaskState.PENDING, TaskState.RUNNING, TaskState.FAILED)
    made = {
        TaskId(number): Task(
            TaskId(number), TaskSpec("true", task_type=kind), state, "ada", datetime(2026, 11, 1, tzinfo=UTC)
        )
        for number, (kind, state) in enumerate(
            ((kind, state) for kind in (TaskType.COMMAND, TaskType.VPS) for state in states), 1
        )
    }
    await store.write(partial(apply_changes, changes=Changes(new_tasks=made)))
    wanted = TaskFilter(TaskType.COMMAND, TaskState.FAILED, owner="ada")
    assert [int(task.id) for task in await store.read(partial(queries.list_tasks, wanted=wanted))] == [3]
    assert [int(task.id) for task in await store.read(queries.failed_vps)] == [6]


async def test_it_says_where_it_lies_how_large_it_is_and_how_much_room_there_is(store: Store) -> None:
    await store.write(put("something"))
    assert store.location
    assert store.size().file_bytes + store.size().log_bytes > 0
    room = await store.room()
    assert room.total_bytes >= room.free_bytes > 0
    await store.keep_reserve(4096)
    assert not store.is_using_reserve


async def test_a_write_fails_before_or_after_its_commit_as_often_as_asked(failing: FailingStore) -> None:
    failing.fail_writes(Unavailable("before"), 2)
    failing.fail_writes(Unavailable("after"), 1, after=True)
    for _ in range(2):
        with pytest.raises(Unavailable, match="before"):
            await failing.write(put("one"))
        assert await failing.read(word) is None
    with pytest.raises(Unavailable, match="after"):
        await failing.write(put("two"))
    assert await failing.read(word) == "two"
    await failing.write(put("three"))
    assert await failing.read(word) == "three"


async def test_a_fault_of_the_disk_stands_until_a_write_succeeds(failing: FailingStore) -> None:
    failing.fail_writes(DiskFault("the disk is full"))
    with pytest.raises(DiskFault):
        await failing.write(put("one"))
    assert failing.write_fault == "the disk is full"
    failing.mend()
    assert failing.write_fault == "the disk is full"
    await failing.write(put("two"))
    assert failing.write_fault is None


async def test_a_read_fails_and_writes_go_on(failing: FailingStore) -> None:
    failing.fail_reads(Unavailable("unreadable"), 1)
    await failing.write(put("one"))
    with pytest.raises(Unavailable, match="unreadable"):
        await failing.read(word)
    assert await failing.read(word) == "one"
