"""Shells that outlive their clients and commands that do not, over streams in memory and the fake engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import Conflict, Denied, EngineFault, InvalidInput, KohakuRiverError, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.streams import StreamCall
from kohakuriver.runner.engines.fake.fake_engine import FakeEngine
from kohakuriver.runner.terminals.numbered_shells import IDLE_SECONDS, MOST_PER_WORKLOAD, Shells
from kohakuriver.runner.terminals.shell import KEPT_BYTES, Shown
from kohakuriver.runner.terminals.streams import TerminalStreams
from kohakuriver.wire.terminal_frames import (
    Control,
    EndOfInput,
    ExitNews,
    Resize,
    ShellNews,
    Start,
    control_frame,
    data_frames,
    read_control,
    read_data,
)
from support.engines.labs import FakeLab, ignore
from support.messages.channels import MemoryChannel, channel_pair
from support.model.virtual_time import VirtualLoop

pytestmark = pytest.mark.anyio


class Client:
    """The host's end of a stream, and the runner's handler at the other."""

    def __init__(self, channel: MemoryChannel, serving: "asyncio.Task[None]") -> None:
        self.channel = channel
        self.serving = serving
        self.shown = b""
        self.errors = b""
        self.news: list[Control] = []

    @property
    def session(self) -> ShellNews:
        news = self.news[0]
        assert isinstance(news, ShellNews)
        return news

    async def step(self) -> bool:
        message = await self.channel.receive()
        if isinstance(message, bytes):
            flow, data = read_data(message)
            if flow is Flow.ERROR:
                self.errors += data
            else:
                self.shown += data
        elif message is not None:
            self.news.append(read_control(message))
        return message is not None

    async def until_shown(self, wanted: bytes) -> None:
        async with asyncio.timeout(10):
            while wanted not in self.shown:
                assert await self.step(), self.shown

    async def to_end(self) -> int:
        async with asyncio.timeout(10):
            while await self.step():
                pass
        news = self.news[-1]
        assert isinstance(news, ExitNews), self.news
        return news.status

    async def type(self, text: bytes) -> None:
        for frame in data_frames(Flow.INPUT, text):
            await self.channel.send(frame)

    async def leave(self) -> None:
        await self.channel.close()
        await self.serving


class Node:
    """One running workload and the streams into it."""

    def __init__(self, folder: Path) -> None:
        self.lab = FakeLab(folder)
        # Writing output takes a thread, which a loop with a time of its own does not wait for.
        self.lab.engine = FakeEngine(self.lab.machine, writes_output=False)
        self.streams = TerminalStreams(lambda _: self.lab.engine)
        self.task_id = TaskId(0)
        self._serving: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        spec = self.lab.spec("sleep", "1000000")
        await self.lab.engine.create(spec, ignore)
        await self.lab.engine.start(spec.task_id, 1)
        self.task_id = spec.task_id

    async def terminal(self, task_id: int | None = None, **query: object) -> Client:
        client = self.begin("terminal", task_id, **query)
        async with asyncio.timeout(10):
            while not client.news:
                assert await client.step()
        return client

    def begin(self, stream: str, task_id: int | None = None, **query: object) -> Client:
        """Open a stream without waiting for what comes of it."""
        handler = self.streams.handlers()[f"/ws/task/{{task_id}}/{stream}"]
        path = {"task_id": str(task_id or self.task_id)}
        call = StreamCall(path, {name: str(value) for name, value in query.items()})
        ours, theirs = channel_pair()

        async def serve() -> None:
            error: KohakuRiverError | None = None
            try:
                await handler(call, theirs)
            except KohakuRiverError as refused:
                error = refused
            await theirs.close(error)

        serving = asyncio.get_running_loop().create_task(serve())
        self._serving.append(serving)
        return Client(ours, serving)

    async def close(self) -> None:
        await self.streams.close()
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


@asynccontextmanager
async def running_node(folder: Path) -> AsyncIterator[Node]:
    node = Node(folder)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as running:
        yield running


async def test_a_client_that_was_cut_off_comes_back_to_the_same_shell_and_sees_what_it_missed(
    node: Node,
) -> None:
    first = await node.terminal(rows=24, cols=80)
    await first.type(b"set river\nget\n")
    await first.until_shown(b"river\n")
    first.channel.break_off()
    await first.serving
    again = await node.terminal(session=first.session.session)
    await again.until_shown(b"river\n")
    await again.type(b"get\n")
    await again.until_shown(b"river\nriver\n")
    assert again.session.session == first.session.session


async def test_a_client_that_says_what_it_has_seen_gets_the_rest_alone(node: Node) -> None:
    first = await node.terminal()
    await first.type(b"one\n")
    await first.until_shown(b"one\n")
    await first.leave()
    other = await node.terminal(session=first.session.session)
    await other.type(b"two\n")
    await other.until_shown(b"two\n")
    await other.leave()
    again = await node.terminal(session=first.session.session, seen=first.session.begins_at + 4)
    assert again.session.begins_at == 4
    await again.until_shown(b"two\n")
    assert again.shown == b"two\n"


async def test_without_a_client_the_shell_goes_on_and_the_last_of_it_is_kept(node: Node) -> None:
    first = await node.terminal()
    await first.type(b"flood 3000000\nprint done\n")
    await first.leave()
    again = await node.terminal(session=first.session.session)
    await again.until_shown(b"done")
    assert again.session.begins_at + len(again.shown) == 3_000_004


async def test_what_a_slow_client_has_not_read_is_neither_lost_nor_piled_up(node: Node) -> None:
    size = 8 << 20
    client = await node.terminal()
    await client.type(b"flood %d\nprint done\n" % size)
    session = node.streams.shells.find(node.task_id, client.session.session)

    async def until_still() -> None:
        before = -1
        while before != session.shown_bytes:
            before = session.shown_bytes
            await asyncio.sleep(0.02)

    async with asyncio.timeout(10):
        await until_still()
    assert session.shown_bytes < 2 * KEPT_BYTES
    await client.until_shown(b"done")
    assert len(client.shown) == size + 4


async def test_a_second_client_takes_over_and_the_first_is_told(node: Node) -> None:
    first = await node.terminal()
    second = await node.terminal(session=first.session.session)
    with pytest.raises(Conflict, match="took over"):
        await first.to_end()
    await second.type(b"mine\n")
    await second.until_shown(b"mine\n")


async def test_a_terminal_ends_with_its_shells_exit_status_and_cannot_be_had_again(node: Node) -> None:
    client = await node.terminal()
    await client.type(b"exit 5\n")
    assert await client.to_end() == 5
    await client.serving
    with pytest.raises(NotFound, match="begin a new one"):
        await node.begin("terminal", session=client.session.session).to_end()


async def test_a_shell_that_ended_meanwhile_tells_its_exit_status_to_who_comes_back(node: Node) -> None:
    client = await node.terminal()
    await client.type(b"print last words\nexit 4\n")
    await client.leave()
    again = await node.terminal(session=client.session.session)
    assert await again.to_end() == 4
    assert again.shown == b"last words"


async def test_the_size_of_the_window_reaches_the_shell(node: Node) -> None:
    client = await node.terminal(rows=31, cols=101)
    await client.type(b"size\n")
    await client.until_shown(b"31 101\n")
    await client.channel.send(control_frame(Resize(17, 55)))
    await client.type(b"size\n")
    await client.until_shown(b"17 55\n")


async def test_a_workload_that_ends_closes_its_terminals_with_the_reason(node: Node) -> None:
    client, away = await node.terminal(), await node.terminal()
    await away.leave()
    await node.lab.engine.stop(node.task_id, 1, 0.1)
    with pytest.raises(Conflict, match="workload has ended"):
        await client.to_end()

    async def until_gone() -> None:
        while node.streams.shells.numbers(node.task_id):
            await asyncio.sleep(0.01)

    await asyncio.wait_for(until_gone(), 10)


async def test_a_number_is_good_for_its_own_workload_alone(node: Node) -> None:
    mine = await node.terminal()
    other = node.lab.spec("sleep", "600")
    await node.lab.engine.create(other, ignore)
    await node.lab.engine.start(other.task_id, 1)
    with pytest.raises(NotFound):
        await node.begin("terminal", other.task_id, session=mine.session.session).to_end()
    assert len(mine.session.session) == 32
    assert mine.session.session != (await node.terminal()).session.session


async def test_a_workload_has_at_most_so_many_terminals_and_ended_ones_make_room(node: Node) -> None:
    clients = [await node.terminal() for _ in range(MOST_PER_WORKLOAD)]
    with pytest.raises(Conflict, match="the most there can be"):
        await node.begin("terminal").to_end()
    await clients[3].type(b"exit 0\n")
    await clients[3].leave()
    ended = node.streams.shells.find(node.task_id, clients[3].session.session)

    async def until_ended() -> None:
        while not ended.has_ended:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(until_ended(), 10)
    await node.terminal()


async def test_a_shell_that_nobody_can_come_back_to_ends_with_its_client(node: Node) -> None:
    client = await node.terminal(keep="no")
    await client.leave()
    with pytest.raises(NotFound):
        await node.begin("terminal", session=client.session.session).to_end()


async def test_the_end_of_the_runner_hangs_up_all_shells(node: Node) -> None:
    client = await node.terminal()
    await node.streams.close()
    with pytest.raises(Conflict, match="ended by the node"):
        await client.to_end()


def test_a_vps_that_is_left_alone_ends_and_one_that_is_looked_at_does_not(tmp_path: Path) -> None:
    loop = VirtualLoop()
    node = Node(tmp_path)
    loop.do(node.start())
    watched, left, noisy = (loop.do(node.terminal()).result() for _ in range(3))
    loop.do(left.leave())
    loop.advance(IDLE_SECONDS - 1)
    back = loop.do(node.terminal(session=left.session.session)).result()
    loop.do(back.leave())
    loop.do(noisy.type(b"sleep 900\nprint noise\nsleep 2000\n"))
    loop.do(noisy.leave())
    loop.advance(IDLE_SECONDS - 1)
    shells = node.streams.shells
    assert shells.find(node.task_id, left.session.session)
    loop.advance(2)
    for gone in (left, noisy):
        with pytest.raises(NotFound):
            shells.find(node.task_id, gone.session.session)
    assert shells.find(node.task_id, watched.session.session)
    loop.do(node.close())
    loop.close()


async def test_a_command_gets_its_input_and_tells_its_output_apart_and_its_status(node: Node) -> None:
    cat = node.begin("exec")
    await cat.channel.send(control_frame(Start(("cat",))))
    sent = bytes(range(256)) * 4096

    async def write() -> None:
        await cat.type(sent)
        await cat.channel.send(control_frame(EndOfInput()))

    status, _ = await asyncio.gather(cat.to_end(), write())
    assert (status, cat.shown, cat.errors) == (0, sent, b"")
    complaint = node.begin("exec")
    await complaint.channel.send(control_frame(Start(("complain", "no"))))
    assert await complaint.to_end() == 0
    assert (complaint.shown, complaint.errors) == (b"", b"no")


async def test_input_after_a_commands_end_is_forgotten_and_its_status_still_told(node: Node) -> None:
    command = node.begin("exec")
    await command.channel.send(control_frame(Start(("exit", "3"))))
    for _ in range(20):
        try:
            await command.type(b"unread")
        except KohakuRiverError:
            break
    assert await command.to_end() == 3


async def test_a_command_ends_with_its_client(node: Node) -> None:
    command = node.begin("exec")
    await command.channel.send(control_frame(Start(("sleep", "500"))))
    await command.leave()  # returns once the process was hung up


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (control_frame(Start(("missing",))), EngineFault),
        (control_frame(Start(())), InvalidInput),
        (control_frame(Start(("a\0b",))), InvalidInput),
        (control_frame(Start(("a",), (("B=C", "d"),))), InvalidInput),
        (control_frame(Resize(1, 1)), InvalidInput),
        ("{nonsense", InvalidInput),
        (b"\0data", InvalidInput),
    ],
)
async def test_what_cannot_be_run_is_refused_with_a_reason(
    node: Node, first: str | bytes, error: type[KohakuRiverError]
) -> None:
    command = node.begin("exec")
    await command.channel.send(first)
    with pytest.raises(error):
        await command.to_end()


async def test_another_user_than_the_workloads_own_is_refused_where_the_host_says_so(node: Node) -> None:
    queries: list[tuple[dict[str, Any], bool]] = [({"user": "own"}, True), ({}, False)]
    for query, refused in queries:
        command = node.begin("exec", **query)
        await command.channel.send(control_frame(Start(("true",), user="root")))
        if refused:
            with pytest.raises(Denied):
                await command.to_end()
        else:
            assert await command.to_end() == 0


async def test_frames_that_are_none_end_the_stream_with_a_reason(node: Node) -> None:
    for message in (b"", b"\x01data", b"\x07data", control_frame(ExitNews(0)), '{"type": "cheese"}'):
        client = await node.terminal()
        await client.channel.send(message)
        with pytest.raises(InvalidInput):
            await client.to_end()


async def test_a_shell_that_cannot_be_opened_takes_no_place(node: Node) -> None:
    shells = Shells(lambda _: node.lab.engine)
    await node.lab.engine.pause(node.task_id, 1)
    for _ in range(MOST_PER_WORKLOAD + 1):
        with pytest.raises(Conflict, match="is paused"):
            await shells.begin(node.task_id, 24, 80)


def test_what_was_shown_is_kept_by_position() -> None:
    shown = Shown(10)
    for number in range(26):
        shown.add(bytes([97 + number]) * 3)
    assert (shown.begin, shown.end) == (68, 78)
    assert shown.since(68, 4) == b"wxxx"
    assert shown.since(78, 4) == b""
