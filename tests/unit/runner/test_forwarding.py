"""One forwarded connection, from the dialling runner's end and from the asking one."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from kohakuriver.models.errors import InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.streams import StreamCall
from kohakuriver.runner.forwarding import Forwarding
from kohakuriver.streams import forwarding
from kohakuriver.streams.forwarding import expect_opened, relay
from support.messages.channels import MemoryChannel, channel_pair


class ScriptedLine:
    """What comes from the line is put there by the test; what goes to it is kept."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes | KohakuRiverError] = asyncio.Queue()
        self.written: list[bytes] = []
        self.output_ended = asyncio.Event()
        self.lost = asyncio.Event()
        self.takes_more = asyncio.Event()
        self.takes_more.set()

    async def read(self) -> bytes:
        piece = await self.incoming.get()
        if isinstance(piece, KohakuRiverError):
            raise piece
        return piece

    async def write(self, data: bytes) -> None:
        await self.takes_more.wait()
        self.written.append(data)

    def end_output(self) -> None:
        self.output_ended.set()

    async def gone(self) -> None:
        await self.lost.wait()


def play(scenario: Callable[[ScriptedLine, MemoryChannel, "asyncio.Task[None]"], Awaitable[None]]) -> None:
    """Run a relay between a line and one end of a channel; the scenario has the other end."""

    async def run() -> None:
        line, (near, far) = ScriptedLine(), channel_pair()
        async with asyncio.timeout(10):
            relaying = asyncio.create_task(relay(near, line))
            try:
                await scenario(line, far, relaying)
            finally:
                relaying.cancel()
                await asyncio.gather(relaying, return_exceptions=True)

    asyncio.run(run())


def test_bytes_go_both_ways_and_the_end_of_one_direction_leaves_the_other_open() -> None:
    async def scenario(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        line.incoming.put_nowait(b"question")
        assert await far.receive() == b"question"
        line.incoming.put_nowait(b"")
        assert await far.receive() == "eof"
        await far.send(b"long ")
        await far.send(b"answer")
        await far.send("eof")
        await relaying
        assert b"".join(line.written) == b"long answer"
        assert line.output_ended.is_set()

    play(scenario)


def test_the_other_ends_end_of_input_is_passed_on_while_this_one_still_speaks() -> None:
    async def scenario(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        await far.send("eof")
        await line.output_ended.wait()
        line.incoming.put_nowait(b"still here")
        assert await far.receive() == b"still here"
        assert not relaying.done()

    play(scenario)


def test_a_closed_channel_ends_it_after_everything_that_came_before() -> None:
    async def scenario(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        await far.send(b"last words")
        await far.close()
        await relaying
        assert line.written == [b"last words"]

    play(scenario)


def test_an_error_of_the_other_end_or_of_the_line_is_raised() -> None:
    async def other_end(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        await far.close(Unavailable("the workload broke the connection off"))
        with pytest.raises(Unavailable, match="broke the connection off"):
            await relaying

    async def line_itself(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        line.incoming.put_nowait(Unavailable("the line broke"))
        with pytest.raises(Unavailable, match="the line broke"):
            await relaying

    play(other_end)
    play(line_itself)


def test_a_line_that_is_gone_ends_it_once_what_it_said_is_delivered() -> None:
    async def scenario(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        for piece in (b"1", b"2", b"3", b"4", b"5", b"6", b""):  # more than the channel holds unread
            line.incoming.put_nowait(piece)
        line.lost.set()
        assert [await far.receive() for _ in range(7)] == [b"1", b"2", b"3", b"4", b"5", b"6", "eof"]
        await relaying

    play(scenario)


def test_a_line_that_is_gone_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "LAST_WORDS_SECONDS", 0.05)

    async def scenario(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        line.lost.set()
        await relaying

    play(scenario)


def test_a_side_that_does_not_read_holds_the_other_one_back() -> None:
    async def scenario(line: ScriptedLine, far: MemoryChannel, relaying: "asyncio.Task[None]") -> None:
        line.takes_more.clear()
        pieces = [far.send(bytes(1000)) for _ in range(20)]
        sending = asyncio.create_task(_one_by_one(pieces))
        await asyncio.wait({sending}, timeout=0.2)
        assert not sending.done()
        line.takes_more.set()
        await sending
        await far.close()
        await relaying
        assert len(line.written) == len(pieces)

    play(scenario)


async def _one_by_one(steps: list[Coroutine[Any, Any, None]]) -> None:
    for step in steps:
        await step


def dialled(
    container: str, port: str, dial: Callable[[TaskId, int], Awaitable[Any]], engine: Any = None
) -> Callable[[MemoryChannel], Awaitable[None]]:
    """The runner's end of a stream; ends as the runner's API ends it."""
    made = engine or SimpleNamespace(ports=SimpleNamespace(dial=dial))

    async def serve(channel: MemoryChannel) -> None:
        error = None
        try:
            await Forwarding(lambda _: made).serve(
                StreamCall({"container": container, "port": port}, {}), channel
            )
        except KohakuRiverError as refused:
            error = refused
        await channel.close(error)

    return serve


async def nobody(task_id: TaskId, port: int) -> Any:
    raise Unavailable("nothing listens")


@pytest.mark.parametrize(
    ("container", "port"),
    [
        ("kohakuriver-vps-1", "0"),
        ("kohakuriver-vps-1", "65536"),
        ("kohakuriver-vps-1", "-22"),
        ("kohakuriver-vps-1", "٢٢"),
        ("kohakuriver-vps-1", "22 "),
        ("kohakuriver-vps-1", ""),
        ("kohakuriver-vps-0", "22"),
        ("kohakuriver-vps-", "22"),
        ("kohakuriver-env-1", "22"),
        ("kohakuriver-vps-1\n", "22"),
        ("xkohakuriver-vps-1", "22"),
        ("kohakuriver-vps-9999999999999999999", "22"),
        ("localhost", "22"),
        ("127.0.0.1", "22"),
    ],
)
def test_the_runner_dials_ports_of_workloads_and_nothing_else(container: str, port: str) -> None:
    async def run() -> None:
        near, far = channel_pair()
        await dialled(container, port, nobody)(far)
        with pytest.raises(InvalidInput):
            await expect_opened(near)

    asyncio.run(run())


def test_who_asks_hears_why_a_port_could_not_be_dialled() -> None:
    async def run() -> None:
        near, far = channel_pair()
        await dialled("kohakuriver-task-77", "8080", nobody)(far)
        with pytest.raises(Unavailable, match="nothing listens"):
            await expect_opened(near)

    asyncio.run(run())


def test_the_runner_connects_the_workload_that_its_container_names() -> None:
    asked: list[tuple[int, int]] = []

    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())  # answers after the end of what it is sent
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(upper, "127.0.0.1", 0)

        async def dial(task_id: TaskId, port: int) -> Any:
            asked.append((task_id, port))
            return await asyncio.open_connection(*server.sockets[0].getsockname()[:2])

        async with asyncio.timeout(10), server:
            near, far = channel_pair()
            serving = asyncio.ensure_future(dialled("kohakuriver-vps-4242", "22", dial)(far))
            await expect_opened(near)
            await near.send(b"hello")
            await near.send("eof")
            assert await near.receive() == b"HELLO"
            assert await near.receive() == "eof"
            assert await near.receive() is None
            await serving

    asyncio.run(run())
    assert asked == [(4242, 22)]


def test_an_answer_of_another_form_is_not_taken_for_an_open_connection() -> None:
    async def run() -> None:
        near, far = channel_pair()
        await far.send(b"SSH-2.0")
        with pytest.raises(Unavailable, match="another version"):
            await expect_opened(near)

    asyncio.run(run())
