"""The host's terminals and commands: both languages, what is refused, and what is held back."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kohakuriver.models.enums import Flow, TaskState
from kohakuriver.models.errors import NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES
from kohakuriver.wire.terminal_frames import (
    SUBPROTOCOL,
    ExitNews,
    Resize,
    ShellNews,
    Start,
    control_frame,
    data_frames,
    read_control,
    read_data,
)
from support.cluster.terminal_path import OWNER, running_task
from support.host.api import ApiHarness, StandInShell, play
from support.messages.channels import MemoryChannel, channel_pair

Connecting = connect

SECONDS = 20


class Stage:
    """A host with one running task, and the runner's end of its stream."""

    def __init__(self, harness: ApiHarness, address: str, task_id: TaskId) -> None:
        self.harness = harness
        self.address = address
        self.task_id = task_id
        harness.runners.channel, self.runner = channel_pair()

    def connect(self, path: str = "terminal", who: str | None = OWNER, **options: Any) -> Connecting:
        url = path if path.startswith("/") else f"/ws/task/{self.task_id}/{path}"
        headers = self.harness.credential(who)
        return connect(f"ws://{self.address}{url}", additional_headers=headers, proxy=None, **options)

    def connect_v2(self, path: str = "terminal", **options: Any) -> Connecting:
        return self.connect(path, subprotocols=[SUBPROTOCOL], **options)

    async def status_of(self, path: str = "terminal", who: str | None = OWNER, **options: Any) -> int:
        with pytest.raises(InvalidStatus) as refused:
            await self.connect_v2(path, who=who, **options)
        return refused.value.response.status_code


def on_stage(folder: Path, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def with_harness(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task_id = await running_task(harness)
        async with harness.served() as address, asyncio.timeout(SECONDS):
            await scenario(Stage(harness, address, task_id))

    play(folder, with_harness)


async def output(runner: MemoryChannel, data: bytes) -> None:
    for frame in data_frames(Flow.OUTPUT, data):
        await runner.send(frame)


def test_our_protocol_is_carried_as_it_is_both_ways(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.connect_v2("terminal?rows=31&cols=101&session=ab&seen=7") as client:
            assert client.subprotocol == SUBPROTOCOL
            target = f"/ws/task/{stage.task_id}/terminal?rows=31&cols=101&session=ab&seen=7"
            assert stage.harness.runners.streams == [("n1", target)]
            for message in (control_frame(ShellNews("ab")), b"\x01\xff\x00", control_frame(ExitNews(3))):
                await stage.runner.send(message)
                assert await client.recv() == message
            for message in (b"\x00\xfe\x00", control_frame(Resize(1, 2))):
                await client.send(message)
                assert await stage.runner.receive() == message
            await stage.runner.close()
            await client.wait_closed()
            assert client.close_code == 1000

    on_stage(tmp_path, scenario)


def test_in_text_frames_characters_arrive_whole_and_the_shell_ends_with_its_client(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        letter = "\N{SNOWMAN}".encode()
        async with stage.connect() as client:
            assert stage.harness.runners.streams[0][1].endswith("keep=no")
            await stage.runner.send(control_frame(ShellNews("ab")))
            await output(stage.runner, b"a" + letter[:1])
            await output(stage.runner, letter[1:2])
            await output(stage.runner, letter[2:] + b"b")
            frames = [json.loads(await client.recv()) for _ in range(2)]
            assert frames == [{"type": "output", "data": "a"}, {"type": "output", "data": "☃b"}]
            await client.send(json.dumps({"type": "input", "data": "☃\n"}))
            await client.send(json.dumps({"type": "resize", "rows": 40, "cols": 132}))
            assert await stage.runner.receive() == b"\x00\xe2\x98\x83\n"
            assert await stage.runner.receive() == control_frame(Resize(40, 132))
            await client.send("{nonsense")
            assert json.loads(await client.recv())["type"] == "error"
            await client.send(json.dumps({"type": "input", "data": "on"}))
            assert await stage.runner.receive() == b"\x00on"
            await stage.runner.send(control_frame(ExitNews(3)))
            await stage.runner.close()
            with pytest.raises(ConnectionClosed):
                await client.recv()

    on_stage(tmp_path, scenario)


def test_a_long_paste_is_carried_in_pieces_and_whole(tmp_path: Path) -> None:
    pasted = bytes(range(256)) * 4000

    async def scenario(stage: Stage) -> None:
        async with stage.connect_v2() as client:
            sending = asyncio.create_task(client.send(b"\0" + pasted))
            received = b""
            while len(received) < len(pasted):
                message = await stage.runner.receive()
                assert isinstance(message, bytes)
                assert len(message) <= MAX_MESSAGE_BYTES
                received += read_data(message)[1]
            await sending
            assert received == pasted

    on_stage(tmp_path, scenario)


def test_what_the_runner_says_against_it_is_told_in_both_languages(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.connect_v2("terminal?session=gone") as client:
            await stage.runner.close(NotFound("no such terminal session"))
            told = read_control(await client.recv(decode=True))
            assert (told.data, told.code) == ("no such terminal session", "not_found")  # type: ignore[union-attr]
            await client.wait_closed()
        stage.harness.runners.channel, stage.runner = channel_pair()
        async with stage.connect() as client:
            await stage.runner.close(NotFound("no such terminal session"))
            assert json.loads(await client.recv()) == {"type": "error", "data": "no such terminal session"}

    on_stage(tmp_path, scenario)


def test_a_client_that_goes_ends_the_stream_to_the_runner(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        async with stage.connect_v2("exec") as client:
            start = control_frame(Start(("cat",)))
            await client.send(start)
            assert await stage.runner.receive() == start
            assert stage.harness.runners.streams == [("n1", f"/ws/task/{stage.task_id}/exec?user=own")]
        assert await stage.runner.receive() is None

    on_stage(tmp_path, scenario)


def test_who_does_not_read_holds_the_runner_back(tmp_path: Path) -> None:
    async def held_back(runner: MemoryChannel, client: ClientConnection) -> int:
        sent = 0
        while sent < 64 << 20:
            try:
                async with asyncio.timeout(1):
                    await output(runner, b"x" * 65536)
            except TimeoutError:
                return sent
            sent += 65536
        raise AssertionError("all was taken though nobody reads")

    async def scenario(stage: Stage) -> None:
        async with stage.connect_v2(max_queue=1) as client:
            sent = await held_back(stage.runner, client)
            received = 0
            while received < sent:
                received += len(await client.recv()) - 1
            assert received >= sent

    on_stage(tmp_path, scenario)


@pytest.mark.parametrize("path", ["terminal", "exec"])
def test_only_who_may_use_a_workload_gets_into_it(tmp_path: Path, path: str) -> None:
    async def scenario(stage: Stage) -> None:
        assert await stage.status_of(path, None) == 401
        assert await stage.status_of(path, "vera") == 403  # a viewer
        assert await stage.status_of(path, "ulf") == 403  # somebody else
        assert await stage.status_of(f"/ws/task/77/{path}") == 404
        assert await stage.status_of(f"/ws/task/seven/{path}") == 422
        assert stage.harness.runners.streams == []
        async with stage.connect_v2(path, who="otto"):
            assert len(stage.harness.runners.streams) == 1

    on_stage(tmp_path, scenario)


def test_a_command_in_a_command_task_runs_as_its_own_user_unless_an_operator_says_otherwise(
    tmp_path: Path,
) -> None:
    async def scenario(stage: Stage) -> None:
        for who in (OWNER, "otto"):
            async with stage.connect_v2("exec", who=who):
                pass
        own, any_user = (target.partition("?")[2] for _, target in stage.harness.runners.streams)
        assert (own, any_user) == ("user=own", "")

    on_stage(tmp_path, scenario)


def test_a_workload_that_is_paused_or_over_has_no_terminal(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.harness.call(OWNER, "POST", f"/api/command/{stage.task_id}/pause")
        await stage.harness.room.report(stage.task_id, TaskState.PAUSED, 2)
        assert await stage.status_of() == 409
        assert await stage.status_of("exec") == 409
        await stage.harness.room.report(stage.task_id, TaskState.COMPLETED, 3, exit_code=0)
        assert await stage.status_of() == 409
        assert stage.harness.runners.streams == []

    on_stage(tmp_path, scenario)


def test_a_node_that_is_unreachable_and_a_command_in_text_frames_are_refused(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        with pytest.raises(InvalidStatus) as refused:
            await stage.connect("exec")
        assert refused.value.response.status_code == 422
        stage.harness.runners.channel = None
        assert await stage.status_of() == 503

    on_stage(tmp_path, scenario)


def test_an_environments_shell_speaks_our_protocol_too(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        shell = stage.harness.environments.shell = StandInShell([b"\xff\x00"])
        async with stage.connect_v2("/ws/docker/host/containers/base/terminal", who="otto") as client:
            assert await client.recv() == b"\x01\xff\x00"
            await client.send(b"\0\xfels\n")
            await client.send(control_frame(Resize(40, 132)))
            await client.send('{"type": "eof"}')
            await client.send(b"\x01not input")
            assert read_control(await client.recv(decode=True)).code == "invalid_input"  # type: ignore[union-attr]
            assert (shell.sizes, shell.written) == ([(40, 132)], [b"\xfels\n", b""])
            await shell.closed.wait()
        shell = stage.harness.environments.shell = StandInShell([b"last", b""])
        async with stage.connect_v2("/ws/docker/host/containers/base/terminal", who="otto") as client:
            assert await client.recv() == b"\x01last"
            assert read_control(await client.recv(decode=True)) == ExitNews(7)
            await client.wait_closed()

    on_stage(tmp_path, scenario)
