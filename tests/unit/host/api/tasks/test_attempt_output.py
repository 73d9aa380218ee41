"""Output of attempts after the first: in a folder of its own, read apart, followed until the next begins."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kohakuriver.host.api.tasks.output import OutputReader
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import Stream, TaskState
from kohakuriver.models.errors import NotFound
from kohakuriver.models.tasks import Task
from support.host.api import ApiHarness, StandInLogs, play
from support.host.followed_output import ID, Watch, joined, running_task
from support.host.task_records import with_facts


def write(folder: Path, attempt: int, data: bytes) -> str:
    path = folder / "logs" / str(ID) / (f"attempt-{attempt}" if attempt > 1 else "") / "stdout.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


@asynccontextmanager
async def reader_of(folder: Path | None) -> AsyncIterator[OutputReader]:
    reader = OutputReader(folder, StandInLogs())
    try:
        yield reader
    finally:
        reader.close()


def read(folder: Path, task: Task, attempt: int | None = None) -> bytes:
    async def scenario() -> bytes:
        async with reader_of(folder) as reader:
            record = task if attempt is None else await reader.of_attempt(task, attempt, Watch(task))
            source = reader.source_of(record, Stream.STDOUT)
            return await joined(reader.read(source, 0, await source.size()))

    return asyncio.run(scenario())


def test_the_output_of_the_current_attempt_is_read_unless_another_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1, b"first")
    write(tmp_path, 2, b"second")
    task = running_task(tmp_path, number=3, stdout_path=write(tmp_path, 3, b"third"))
    assert [read(tmp_path, task, attempt) for attempt in (None, 1, 2, 3)] == [
        b"third",
        b"first",
        b"second",
        b"third",
    ]


def test_a_task_that_waits_anew_shows_what_its_last_attempt_wrote(tmp_path: Path) -> None:
    path = write(tmp_path, 2, b"second")
    lost = running_task(tmp_path, number=2, stdout_path=path).to(TaskState.LOST)
    task = lost.run_again("its node fell silent")
    assert (task.state, task.assigned_node) == (TaskState.PENDING, None)
    assert read(tmp_path, task) == b"second"


def test_a_later_attempt_that_an_older_host_began_is_read_where_it_wrote(tmp_path: Path) -> None:
    task = running_task(tmp_path, number=2, stdout_path=write(tmp_path, 1, b"of the second"))
    assert read(tmp_path, task) == b"of the second"


def test_an_attempt_that_is_to_come_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="attempt 1 only"):
        read(tmp_path, running_task(tmp_path, number=1), 2)
    assert read(tmp_path, running_task(tmp_path, number=0, stdout_path=None), 1) == b""


def test_an_attempt_is_followed_to_its_end_and_no_further(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = write(tmp_path, 1, b"first\n")
        watch = Watch(running_task(tmp_path, number=1, stdout_path=first))
        async with reader_of(tmp_path) as reader, asyncio.timeout(20):
            following = reader.follow(watch.task, Stream.STDOUT, 0, watch, 1)
            got = await anext(following)
            assert got == b"first\n"
            write(tmp_path, 1, b"first\nlast\n")
            watch.task = with_facts(
                watch.task, number=2, stdout_path=write(tmp_path, 2, b"second\n"), stdout_bytes=None
            )
            assert await joined(following) == b"last\n"
            both = reader.follow(watch.task, Stream.STDOUT, 0, watch, None)
            assert await anext(both) == b"second\n"
            await both.aclose()

    asyncio.run(scenario())


def test_an_old_attempt_whose_output_stayed_on_its_node_ends_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        task = running_task(tmp_path, number=2, stdout_path=None, stdout_bytes=9)
        async with reader_of(None) as reader, asyncio.timeout(20):
            watch = Watch(task)
            watch.past[1] = Attempt(1, "n1", stdout_bytes=9, end=TaskState.LOST)
            old = await reader.of_attempt(task, 1, watch)
            assert await joined(reader.follow(old, Stream.STDOUT, 0, watch, 1)) == b""

    asyncio.run(scenario())


def test_an_older_attempt_is_followed_until_all_that_it_wrote_was_sent(tmp_path: Path) -> None:
    """It may come late into storage that is shared over a network."""

    async def scenario() -> None:
        first = write(tmp_path, 1, b"first\n")
        watch = Watch(running_task(tmp_path, number=2, stdout_path=write(tmp_path, 2, b"second")))
        watch.past[1] = Attempt(1, "n1", stdout_path=first, stdout_bytes=11, end=TaskState.KILLED)
        async with reader_of(tmp_path) as reader, asyncio.timeout(20):
            old = await reader.of_attempt(watch.task, 1, watch)
            following = reader.follow(old, Stream.STDOUT, 0, watch, 1)
            assert await anext(following) == b"first\n"
            write(tmp_path, 1, b"first\nlate\n")
            assert await joined(following) == b"late\n"

    asyncio.run(scenario())


def test_output_of_an_older_attempt_that_was_removed_is_told_from_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = write(tmp_path, 1, b"first\n")
        Path(first).unlink()
        watch = Watch(running_task(tmp_path, number=2, stdout_path=write(tmp_path, 2, b"second")))
        watch.past[1] = Attempt(1, "n1", stdout_path=first, stdout_bytes=6, end=TaskState.KILLED)
        async with reader_of(tmp_path) as reader:
            old = await reader.of_attempt(watch.task, 1, watch)
            with pytest.raises(NotFound, match="KEEP_OUTPUT_DAYS"):
                await reader.source_of(old, Stream.STDOUT).size()

    asyncio.run(scenario())


def test_attempts_are_asked_for_over_http(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit(retries=3)
        shown = (await harness.call("vera", "GET", f"/api/status/{task}")).json()
        assert (shown["retries"], shown["retries_used"], shown["attempt"]) == (3, 0, 0)
        path = f"/api/tasks/{task}/stdout"
        answers = [
            await harness.call("vera", "GET", path, params={"attempt": attempt}) for attempt in (1, 2, 0)
        ]
        assert [answer.status_code for answer in answers] == [200, 404, 422]

    play(tmp_path, scenario)


@pytest.mark.parametrize("retries", [-1, 101, "2", 1.5])
def test_a_number_of_retries_that_makes_no_sense_is_refused(tmp_path: Path, retries: object) -> None:
    async def scenario(harness: ApiHarness) -> None:
        answer = await harness.call("otto", "POST", "/api/submit", json={"command": "x", "retries": retries})
        assert answer.status_code == 422

    play(tmp_path, scenario)
