"""A full disk under the host's database: nothing is taken in, all are told, and work goes on by itself."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from kohakuriver.host.control import store_watch
from kohakuriver.host.store import disk_space
from kohakuriver.host.store.disk_space import DiskSpace
from kohakuriver.host.store.sqlite.disk import disk_fault
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.messages import AttemptState
from support.host.api import api_harness
from support.host.control import Room, control_room
from support.machine.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.root

MIB = 1 << 20


def keep_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the host meet the last byte itself, as if it kept no room and did not ask first."""
    monkeypatch.setattr(disk_space, "RESERVE_BYTES", 0)
    monkeypatch.setattr(store_watch, "written_bytes", lambda _specs: 0)


async def until(condition: object, what: str, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def submit_until_refused(room: Room) -> tuple[list[TaskId], str]:
    """Submit for as long as it is taken; returns what was taken, and why no more was."""
    taken: list[TaskId] = []
    for _ in range(20_000):
        try:
            taken.append(await room.submit(node=None, env_vars=(("FILLER", "x" * 2000),)))
        except Unavailable as error:
            return taken, str(error)
    raise AssertionError("a full disk took 20,000 tasks")


def check_database(disk: SmallDisk, tasks: list[TaskId]) -> None:
    with sqlite3.connect(disk.path / "host.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {row[0] for row in connection.execute("SELECT id FROM tasks")}
    assert found == set(tasks)


def test_a_full_disk_refuses_with_the_reason_and_the_host_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_no_room(monkeypatch)

    async def scenario(disk: SmallDisk) -> list[TaskId]:
        async with control_room(disk.path) as room:
            await room.join()
            first = await room.submit(node="n1")
            disk.fill()
            taken, reason = await submit_until_refused(room)
            assert "is full" in reason
            assert "nothing was taken in" in reason
            assert str(disk.path) in reason
            assert any(
                "is full" in sentence for part, sentence in room.control.figures.faults() if part == "store"
            )
            # Reads go on, and a node that beats is alive.
            assert (await room.control.tasks.find(first)).id == first
            await room.beat()
            assert room.control.nodes.snapshots()[0].status.value == "online"
            with pytest.raises(Unavailable, match="is full"):
                await room.report(first, TaskState.RUNNING, 1)
            disk.empty()
            # Nobody asks for anything, and still:
            await until(lambda: not room.control.figures.faults(), "the host to go on by itself")
            await room.report(first, TaskState.RUNNING, 1)
            assert await room.state(first) is TaskState.RUNNING
            last = await room.submit(node=None)
            return [first, *taken, last]

    with small_disk(tmp_path / "disk", 8) as disk:
        check_database(disk, asyncio.run(scenario(disk)))


def test_what_is_said_of_tokens_is_true_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_no_room(monkeypatch)

    async def scenario(disk: SmallDisk) -> None:
        async with api_harness(disk.path) as harness:

            async def known() -> set[str]:
                return {
                    token["token_id"]
                    for token in (await harness.call("ada", "GET", "/api/auth/tokens")).json()
                }

            disk.fill()
            await submit_until_refused(harness.room)
            valid = await known()
            for _ in range(90):
                made = await harness.call("ada", "POST", "/api/auth/tokens/create", json={"name": "x" * 100})
                if made.status_code != 200:
                    assert made.status_code == 503
                    assert "is full" in made.json()["detail"]
                    break
                valid.add(made.json()["token_id"])
            else:
                raise AssertionError("a full disk took 90 tokens")
            assert await known() == valid
            # A token that could not be ended is shown as what it is.
            one = min(valid)
            if (await harness.call("ada", "DELETE", f"/api/auth/tokens/{one}")).status_code == 200:
                valid.remove(one)
        with sqlite3.connect(disk.path / "host.db") as connection:
            rows = connection.execute("SELECT id FROM tokens WHERE user_name = 'ada'")
            assert {row[0] for row in rows} == valid

    with small_disk(tmp_path / "disk", 8) as disk:
        asyncio.run(scenario(disk))


def test_the_last_room_is_kept_for_work_that_is_there_already(tmp_path: Path) -> None:
    async def scenario(disk: SmallDisk) -> None:
        async with control_room(disk.path) as room:
            await room.join()
            running = await room.submit(node="n1")
            await room.accept_orders()
            disk.fill(leave_bytes=MIB)  # of the reserve, which is a tenth of 32 MiB
            await until(room.control.figures.faults, "the shortage to be seen")
            with pytest.raises(Unavailable, match=r"nearly full.*nothing was taken in"):
                await room.submit()
            await room.report(running, TaskState.RUNNING, 1)
            await room.beat(
                attempts=[AttemptState(task_id=running, attempt=1, status=TaskState.RUNNING, revision=1)]
            )
            await room.report(running, TaskState.COMPLETED, 2, exit_code=0)
            assert await room.state(running) is TaskState.COMPLETED
            disk.empty()
            await until(lambda: not room.control.figures.faults(), "the shortage to be over")
            await room.submit()

    with small_disk(tmp_path / "disk", 32) as disk:
        asyncio.run(scenario(disk))


def test_what_waits_is_not_placed_while_room_is_short(tmp_path: Path) -> None:
    async def scenario(disk: SmallDisk) -> None:
        async with control_room(disk.path) as room:
            await room.join(cores=1)
            first, second = await room.submit(), await room.submit()
            await room.accept_orders()
            disk.fill(leave_bytes=MIB)
            await until(room.control.figures.faults, "the shortage to be seen")
            await room.report(first, TaskState.COMPLETED, 1, exit_code=0)
            assert await room.state(second) is TaskState.PENDING
            disk.empty()
            await until(lambda: not room.control.figures.faults(), "the shortage to be over")
            await room.beat()
            assert await room.state(second) is TaskState.ASSIGNING

    with small_disk(tmp_path / "disk", 32) as disk:
        asyncio.run(scenario(disk))


def test_a_node_that_beats_through_the_outage_keeps_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_no_room(monkeypatch)

    async def scenario(disk: SmallDisk) -> None:
        async with control_room(disk.path, check_seconds=0.05) as room:
            await room.join()
            task = await room.submit()
            await room.accept_orders()
            await room.report(task, TaskState.RUNNING, 1)
            held = [AttemptState(task_id=task, attempt=1, status=TaskState.RUNNING, revision=1)]
            disk.fill()
            await submit_until_refused(room)
            async with asyncio.timeout(30):
                beats = room.beats + 15  # for longer than the timeout of two seconds
                while room.beats < beats:
                    await room.beat(attempts=held)
                    await asyncio.sleep(0.2)
            disk.empty()
            await until(lambda: not room.control.figures.faults(), "the host to go on by itself")
            await room.beat(attempts=held)
            assert await room.state(task) is TaskState.RUNNING

    with small_disk(tmp_path / "disk", 8) as disk:
        asyncio.run(scenario(disk))


def test_what_a_heartbeat_tells_in_the_outage_is_judged_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_no_room(monkeypatch)

    async def scenario(disk: SmallDisk) -> None:
        async with control_room(disk.path) as room:
            await room.join()
            task = await room.submit()
            await room.accept_orders()
            await room.report(task, TaskState.RUNNING, 1)
            disk.fill()
            await submit_until_refused(room)
            stray = AttemptState(task_id=1, attempt=1, status=TaskState.RUNNING, revision=1)
            assert await room.beat(attempts=[stray], orders_seen=1 << 61) == []
            assert await room.state(task) is TaskState.RUNNING
            disk.empty()
            await until(lambda: not room.control.figures.faults(), "the host to go on by itself")
            assert len(await room.beat(attempts=[stray], orders_seen=1 << 61)) == 1
            assert await room.state(task) is TaskState.FAILED

    with small_disk(tmp_path / "disk", 8) as disk:
        asyncio.run(scenario(disk))


def test_a_small_disk_keeps_a_tenth_and_a_large_one_32_mib() -> None:
    assert DiskSpace(0, 80 * MIB).reserve_bytes == 8 * MIB
    assert DiskSpace(0, 500_000 * MIB).reserve_bytes == 32 * MIB
    assert DiskSpace(7 * MIB, 80 * MIB).is_short
    assert not DiskSpace(9 * MIB, 80 * MIB).is_short


def _error(name: str) -> sqlite3.Error:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SQLITE_IOERR_FSYNC", "fails"),
        ("SQLITE_IOERR", "fails"),
        ("SQLITE_READONLY_DBMOVED", "read-only"),
        ("SQLITE_CORRUPT", "restore a backup"),
    ],
)
def test_each_fault_of_the_disk_is_named(tmp_path: Path, name: str, words: str) -> None:
    assert words in (disk_fault(tmp_path / "host.db", _error(name)) or "")


def test_a_defect_of_one_transaction_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    assert disk_fault(tmp_path / "host.db", _error("SQLITE_CONSTRAINT_UNIQUE")) is None
    assert disk_fault(tmp_path / "host.db", ValueError("anything")) is None
