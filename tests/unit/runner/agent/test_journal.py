"""The journal and the book: nothing that was waited for is lost, and nothing that is torn is believed."""

import asyncio
import errno
import os
import struct
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.agent import book as book_module
from kohakuriver.runner.agent import durable_book as durable_book_module
from kohakuriver.runner.agent import journal as journal_module
from kohakuriver.runner.agent.book import Book
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.journal import JournalFault
from kohakuriver.runner.agent.order_spec import order_to_spec
from kohakuriver.runner.agent.records import (
    Accepted,
    Closed,
    Committed,
    Forgotten,
    KillAsked,
    Record,
    Removed,
    Reported,
    Starting,
    Steered,
    Withdrawn,
    decode_record,
    encode_record,
)
from kohakuriver.wire.messages import TaskReport
from support.runner.agent_world import FACTS, RecordingHost, execute, order, process, settings_in
from support.runner.machine_engine import Machine


def accepted(task_id: int, attempt: int = 1) -> Accepted:
    order = execute(
        task_id,
        attempt,
        target_numa_node_id=1,
        required_gpus=[1],
        env_vars={"A": "é"},
        additional_mounts=["/a:/b:ro"],
    )
    return Accepted(order_to_spec(order, FACTS, settings_in(Path("/srv"))), order.order_id)


def report(task_id: int, attempt: int, revision: int, status: TaskState) -> Reported:
    return Reported(
        TaskReport(
            task_id=str(task_id),
            status=status,
            attempt=attempt,
            revision=revision,
            completed_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        )
    )


_tasks, _attempts = st.integers(1, 3), st.integers(1, 2)
_states = st.sampled_from([TaskState.RUNNING, TaskState.PAUSED, TaskState.COMPLETED, TaskState.KILLED])
_records: st.SearchStrategy[Record] = st.one_of(
    st.builds(accepted, _tasks, _attempts),
    st.builds(Starting, _tasks, _attempts),
    st.builds(KillAsked, _tasks, _attempts),
    st.builds(Steered, _tasks, _attempts, st.integers(1, 99)),
    st.builds(report, _tasks, _attempts, st.integers(1, 5), _states),
    st.builds(Committed, _tasks, _attempts, st.integers(1, 5)),
    st.builds(Removed, _tasks, _attempts),
    st.builds(Closed, _tasks, _attempts, st.integers(0, 99)),
    st.builds(Forgotten, st.integers(1, 99)),
    st.builds(Withdrawn, _tasks, _attempts),
)


@given(_records)
def test_a_record_survives_its_bytes(record: Record) -> None:
    assert decode_record(encode_record(record)) == record


def test_a_record_of_a_later_version_is_refused_with_a_sentence() -> None:
    later = msgspec.msgpack.decode(encode_record(accepted(7)))
    later[1]["body"]["type"] = "hologram"
    broken: list[Any] = [later, ["accepted", {"body": 1}, 5], ["accepted"], "accepted", {}]
    for record in broken:
        with pytest.raises(InvalidInput, match="a newer version wrote it"):
            decode_record(msgspec.msgpack.encode(record))


@given(st.lists(_records, max_size=25))
@example([report(1, 1, 1, TaskState.COMPLETED), report(1, 1, 2, TaskState.RUNNING), Committed(1, 1, 2)])
def test_the_short_form_of_a_book_gives_the_same_book(records: list[Record]) -> None:
    first, second = Book(), Book()
    for record in records:
        first.apply(record)
    for record in first.records():
        second.apply(record)
    assert list(first) == list(second)
    assert [first.newest_number(TaskId(task)) for task in (1, 2, 3)] == [
        second.newest_number(TaskId(task)) for task in (1, 2, 3)
    ]
    assert first.forgotten_up_to == second.forgotten_up_to
    for attempt in first:
        assert first.older_than(attempt.key) == second.older_than(attempt.key)


def test_only_the_tasks_closed_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "KEPT_CLOSED", 10)
    book = Book()
    for task_id in range(1, 31):
        book.apply(Closed(task_id, 1))
    assert [task for task in range(1, 31) if book.newest_number(TaskId(task))] == list(range(21, 31))


def test_a_replayed_order_of_a_task_that_is_forgotten_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_module, "KEPT_CLOSED", 2)

    async def scenario() -> None:
        machine = Machine(exits=dict.fromkeys(range(1, 6), 0))
        host = RecordingHost()
        async with process(tmp_path, machine, host) as world:
            for task_id in range(1, 6):
                assert await world.obey(execute(task_id, order_id=100 + task_id)) == [None]
                await world.until(lambda: world.agent.attempts()[0] == [])
        async with process(tmp_path, machine, host) as later:
            (refusal,) = await later.obey(execute(1, order_id=101))
            assert refusal is not None
            assert await later.obey(execute(9, order_id=109)) == [None]
        assert machine.starts[1, 1] == 1

    asyncio.run(scenario())


def _write(path: Path, *records: Record) -> None:
    async def scenario() -> None:
        book = DurableBook(path)
        for record in records:
            await book.write(record)
        book.close()

    asyncio.run(scenario())


def _held(path: Path) -> list[int]:
    book = DurableBook(path)
    book.close()
    return [attempt.task_id for attempt in book.book]


def test_a_journal_cut_at_any_byte_opens_with_a_beginning_of_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path, accepted(1), accepted(2), accepted(3))
    whole = path.read_bytes()
    seen = set()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        held = _held(path)
        assert held == [1, 2, 3][: len(held)]
        seen.add(len(held))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("garbage", [b"\0" * 40, b"\xff" * 40])
def test_garbage_behind_the_end_is_ignored_and_gone_after_the_next_write(
    tmp_path: Path, garbage: bytes
) -> None:
    path = tmp_path / "journal"
    _write(path, accepted(1))
    with path.open("ab") as file:
        file.write(garbage)
    _write(path, accepted(2))
    assert garbage not in path.read_bytes()
    assert _held(path) == [1, 2]


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path, accepted(1), accepted(2))
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(bytes(whole))
    assert _held(path) == [1]


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"something else")
    with pytest.raises(InvalidInput, match="move it away"):
        DurableBook(path)
    assert path.read_bytes() == b"something else"


def test_many_writers_share_few_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0
    real = os.fdatasync

    def counted(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", counted)

    async def scenario() -> None:
        book = DurableBook(tmp_path / "journal")
        await book.write(accepted(1))
        await asyncio.gather(*(book.write(accepted(task_id)) for task_id in range(2, 202)))
        book.close()

    asyncio.run(scenario())
    assert len(_held(tmp_path / "journal")) == 201
    assert 1 <= syncs <= 20


def test_the_journal_shrinks_when_work_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MIN_REWRITE_BYTES", 4096)
    path = tmp_path / "journal"

    async def scenario() -> None:
        book = DurableBook(path)
        for task_id in range(1, 200):
            await book.write(accepted(task_id), report(task_id, 1, 1, TaskState.COMPLETED))
            await book.write(Committed(task_id, 1, 1), Removed(task_id, 1))
        book.close()

    asyncio.run(scenario())
    assert path.stat().st_size < 20_000
    assert DurableBook(path).book.newest_number(TaskId(150)) == 1


class FullDisk:
    """Writes fail with ENOSPC, after half of the bytes, for as long as `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            if self.full:
                real(descriptor, bytes(data)[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data)

        def private(path: Path, data: bytes) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            path.write_bytes(data)

        monkeypatch.setattr(os, "write", write)
        monkeypatch.setattr(journal_module, "write_private", private)


def test_a_write_that_failed_half_way_does_not_spoil_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, disk = tmp_path / "journal", FullDisk(monkeypatch)

    async def scenario() -> None:
        book = DurableBook(path)
        await book.write(accepted(1))
        disk.full = True
        with pytest.raises(JournalFault, match="No space left"):
            await book.write(accepted(2))
        with pytest.raises(JournalFault):
            await book.write(accepted(3))
        assert "No space left" in (book.fault or "")
        disk.full = False
        await book.write(Withdrawn(2, 1))
        assert book.fault is None
        await book.write(accepted(4))
        book.close()

    asyncio.run(scenario())
    assert _held(path) == [1, 3, 4]


def test_a_full_disk_holds_orders_and_reports_back_and_shows_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)

    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute(7))
            await host.until(lambda: host.states((7, 1)) == [TaskState.RUNNING])
            disk.full = True
            seen = world.agent.attempts()[1]
            with pytest.raises(JournalFault, match="No space left"):
                await world.obey(execute(8))
            assert world.agent.attempts()[1] == seen, "the host must not think that the order was taken in"
            assert any("No space left" in fault for fault in world.agent.faults())
            await machine.finish((7, 1), 0)
            await world.until(lambda: world.death.names.count("waited") == 1)
            assert host.states((7, 1)) == [TaskState.RUNNING]
            disk.full = False
            assert (await host.until_ended((7, 1))).status is TaskState.COMPLETED
            assert (8, 1) not in machine.starts
        async with process(tmp_path, machine, host) as world:
            await world.until(lambda: world.agent.faults() == [])
            assert (8, 1) not in machine.starts
            assert await world.obey(execute(8)) == [None], "the host gives it again"
            await host.until(lambda: host.states((8, 1)) == [TaskState.RUNNING])

    asyncio.run(scenario())


def test_a_kill_ends_its_task_though_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)

    async def scenario() -> None:
        machine, host = Machine(), RecordingHost()
        async with process(tmp_path, machine, host) as world:
            await world.obey(execute(7))
            await host.until(lambda: host.states((7, 1)) == [TaskState.RUNNING])
            disk.full = True
            with pytest.raises(JournalFault):
                await world.obey(order(OrderKind.KILL, 7))
            await world.until(lambda: "stopped" in world.death.names)
            disk.full = False
            assert (await host.until_ended((7, 1))).status is TaskState.KILLED

    asyncio.run(scenario())


def test_the_fault_of_a_full_disk_ends_though_nobody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_book_module, "MEND_SECONDS", 0.01)
    disk = FullDisk(monkeypatch)

    async def scenario() -> None:
        async with process(tmp_path, Machine(), RecordingHost()) as world:
            disk.full = True
            with pytest.raises(JournalFault):
                await world.obey(execute(8))
            disk.full = False
            await world.until(lambda: world.agent.faults() == [])

    asyncio.run(scenario())


def _appended(path: Path, payload: bytes) -> None:
    with path.open("ab") as file:
        file.write(struct.pack("<II", len(payload), zlib.crc32(payload)) + payload)


def test_a_record_of_a_newer_version_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path, accepted(1))
    _appended(path, msgspec.msgpack.encode(["teleported", 1, 1]))
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="newer version wrote it"):
        DurableBook(path)
    assert path.read_bytes() == before


def test_a_record_with_a_field_more_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _write(path, accepted(1))
    _appended(path, msgspec.msgpack.encode(["starting", 1, 1, "a later version's field"]))
    attempt = DurableBook(path).book.get((TaskId(1), 1))
    assert attempt is not None
    assert attempt.starting
