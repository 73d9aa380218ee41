"""Following output: every byte once and to the end, at the cost of one look for any number of followers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from kohakuriver.host.api.tasks import log_tail
from kohakuriver.host.api.tasks.log_tail import Tails, TaskWatch
from kohakuriver.host.api.tasks.output import OutputReader
from kohakuriver.models.enums import Stream, TaskState
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from support.host.api import ApiHarness, StandInLogs, play
from support.host.followed_output import ID, Watch, joined, running_task, write
from support.host.task_records import with_facts


async def no_older(task: Task, number: int, watch: TaskWatch) -> Task:
    raise AssertionError("nobody follows only one attempt here")


def test_following_gives_every_byte_once_and_ends_with_the_task(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        path = write(tmp_path, b"one\n")
        watch = Watch(running_task(tmp_path))
        reader = OutputReader(tmp_path, StandInLogs())
        following = asyncio.create_task(joined(reader.tails.follow(watch.task, Stream.STDOUT, 0, watch)))
        for line in (b"two\n", b"three\n"):
            with path.open("ab") as file:
                file.write(line)
            await asyncio.sleep(0.05)
            assert not following.done()
        # The end is known before the last bytes are to be seen, as on storage over the network.
        watch.end(stdout_bytes=18)
        await asyncio.sleep(0.05)
        assert not following.done()
        with path.open("ab") as file:
            file.write(b"four")
        async with asyncio.timeout(10):
            found = await following
        reader.close()
        return found

    assert asyncio.run(scenario()) == b"one\ntwo\nthree\nfour"


def test_following_bears_with_a_node_that_is_unreachable_for_a_while(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        logs = StandInLogs()
        logs.streams[ID, Stream.STDOUT] = b"here"
        logs.unreachable = True
        watch = Watch(running_task(tmp_path, stdout_path=None))
        reader = OutputReader(tmp_path, logs)
        following = asyncio.create_task(joined(reader.tails.follow(watch.task, Stream.STDOUT, 0, watch)))
        await asyncio.sleep(0.05)
        logs.unreachable = False
        watch.end(stdout_bytes=4)
        async with asyncio.timeout(10):
            found = await following
        reader.close()
        return found

    assert asyncio.run(scenario()) == b"here"


def test_following_a_task_that_was_killed_in_the_queue_ends(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        task = running_task(tmp_path, stdout_path=None, node=None, state=TaskState.KILLED)
        watch = Watch(task)
        reader = OutputReader(None, StandInLogs())
        async with asyncio.timeout(5):
            found = await joined(reader.tails.follow(task, Stream.STDOUT, 0, watch))
        reader.close()
        return found

    assert asyncio.run(scenario()) == b""


class CountedFile:
    """A stream in memory; `reads` counts how often it was looked at."""

    def __init__(self) -> None:
        self.data = b""
        self.reads = 0

    async def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        return self.data[offset : offset + length]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def test_500_followers_of_a_stream_cost_one_look_at_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        file, watch = CountedFile(), Watch(running_task(tmp_path))
        file.data = b"before\n"
        tails = Tails(lambda _task, _stream: file, no_older)
        received: list[list[bytes]] = [[] for _ in range(500)]

        async def follow(pieces: list[bytes]) -> None:
            async for piece in tails.follow(watch.task, Stream.STDOUT, 7, watch):
                pieces.append(piece)

        following = [asyncio.create_task(follow(pieces)) for pieces in received]
        await until(lambda: tails.followers == 500 and file.reads > 0)
        reads = file.reads
        for number in range(3):
            file.data += b"line %d\n" % number
            await until(lambda: all(b"".join(pieces) == file.data[7:] for pieces in received))
        looks = file.reads - reads
        watch.end(stdout_bytes=len(file.data))
        await asyncio.gather(*following)
        assert looks < 100, "1,500 pieces were handed out"
        # All were given the very same pieces, not copies of them.
        assert [id(piece) for piece in received[0]] == [id(piece) for piece in received[499]]

    asyncio.run(scenario())


def test_a_follower_that_is_behind_reads_for_itself_and_misses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tail, "KEPT_BYTES", 100)

    async def scenario() -> None:
        file, watch = CountedFile(), Watch(running_task(tmp_path))
        tails = Tails(lambda _task, _stream: file, no_older)
        fast = asyncio.create_task(joined(tails.follow(watch.task, Stream.STDOUT, 0, watch)))
        slow, got = tails.follow(watch.task, Stream.STDOUT, 0, watch), b""
        for number in range(50):
            file.data += b"%05d-aaaaaaaaaaaaaaaaaaaaaaaaa\n" % number
            if number % 20 == 0:
                got += await anext(slow)
        watch.end(stdout_bytes=len(file.data))
        assert await fast == file.data
        assert got + await joined(slow) == file.data

    asyncio.run(scenario())


def test_a_new_attempt_begins_a_new_stream_that_followers_go_on_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        streams = {1: CountedFile(), 2: CountedFile()}
        streams[1].data, streams[2].data = b"first try, cut sh", b"second try\n"
        watch = Watch(running_task(tmp_path, number=1))
        tails = Tails(lambda task, _stream: streams[task.attempt.number], no_older)
        following = tails.follow(watch.task, Stream.STDOUT, 0, watch)
        assert await anext(following) == b"first try, cut sh"
        watch.task = with_facts(watch.task, number=2)
        assert await anext(following) == b"second try\n"
        watch.end(stdout_bytes=11)
        assert await joined(following) == b""

    asyncio.run(scenario())


def test_a_task_that_is_followed_from_the_queue_shows_its_output_as_it_comes(tmp_path: Path) -> None:
    async def scenario(harness: ApiHarness) -> None:
        task = await harness.submit()
        tails = harness.app.state.parts.output.tails
        record = await harness.room.control.tasks.find(TaskId(int(task)))
        following = tails.follow(record, Stream.STDOUT, 0, harness.room.control.tasks)
        first = asyncio.ensure_future(anext(following))
        await harness.room.join("n1")
        path = harness.shared / "logs" / task / "stdout.log"
        harness.logs.streams[int(task), Stream.STDOUT] = b"it runs\n"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"it runs\n")
        async with asyncio.timeout(20):
            assert await first == b"it runs\n"
        await following.aclose()

    play(tmp_path, scenario)


def test_followers_hear_of_a_look_that_failed_instead_of_waiting(tmp_path: Path) -> None:
    class Broken(CountedFile):
        async def read(self, offset: int, length: int) -> bytes:
            raise ValueError("a defect")

    async def scenario() -> None:
        watch = Watch(running_task(tmp_path))
        tails = Tails(lambda _task, _stream: Broken(), no_older)
        async with asyncio.timeout(20):
            with pytest.raises(Unavailable, match="a defect"):
                await joined(tails.follow(watch.task, Stream.STDOUT, 0, watch))
        assert tails.followers == 0

    asyncio.run(scenario())


def test_followers_are_let_go_when_the_host_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        watch = Watch(running_task(tmp_path))
        tails = Tails(lambda _task, _stream: CountedFile(), no_older)
        following = asyncio.create_task(joined(tails.follow(watch.task, Stream.STDOUT, 0, watch)))
        await until(lambda: tails.followers == 1)
        tails.close()
        with pytest.raises(Unavailable, match="stops"):
            await following

    asyncio.run(scenario())
