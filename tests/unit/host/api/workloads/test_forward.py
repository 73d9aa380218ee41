"""The host's WebSocket of a tunnel: who may have one, what is said, and frames that pass unread."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import Conflict, KohakuRiverError, NotFound, SwitchedOff, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.streams.forwarding import OPENED
from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Connected, Ended, Opened, Received
from kohakuriver.wire.tunnel.frames import (
    EARLIER_SUBPROTOCOL,
    MAX_FRAME_BYTES,
    SUBPROTOCOL,
    Transport,
)
from kohakuriver.wire.tunnel.table import Role
from support.cluster.terminal_path import OWNER, running_task
from support.host.api import ApiHarness, play
from support.messages.channels import MemoryChannel, channel_pair

SECONDS = 20


class Stage:
    """A host with one running task, and the runner's end of its stream, which is open."""

    def __init__(self, harness: ApiHarness, address: str, task_id: TaskId) -> None:
        self.harness = harness
        self.address = address
        self.task_id = task_id
        harness.runners.channel, self.runner = channel_pair()

    def connect(
        self, where: str = "8888", who: str | None = OWNER, *, old: bool = False, **options: Any
    ) -> connect:
        options.setdefault("subprotocols", None if old else [Subprotocol(SUBPROTOCOL)])
        headers = self.harness.credential(who) | options.pop("headers", {})
        url = f"ws://{self.address}/ws/forward/{self.task_id}/{where}"
        return connect(url, additional_headers=headers, proxy=None, **options)

    async def refused(self, where: str = "8888", who: str | None = OWNER, **options: Any) -> InvalidStatus:
        with pytest.raises(InvalidStatus) as refused:
            await self.connect(where, who, **options)
        return refused.value


def on_stage(folder: Path, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def with_harness(harness: ApiHarness) -> None:
        await harness.room.join("n1")
        task_id = await running_task(harness)
        async with harness.served() as address, asyncio.timeout(SECONDS):
            await scenario(Stage(harness, address, task_id))

    play(folder, with_harness)


async def ends(client: ClientConnection) -> tuple[list[str | bytes], int]:
    """What still comes, and the code at its end."""
    heard = []
    try:
        while True:
            heard.append(await client.recv())
    except ConnectionClosed as closed:
        return heard, closed.rcvd.code if closed.rcvd else 0


def test_frames_pass_unread_both_ways(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.send(OPENED)
        async with stage.connect("8888?proto=tcp") as client:
            assert client.subprotocol == SUBPROTOCOL
            assert stage.harness.runners.streams == [("n1", f"/ws/forward/kohakuriver-task-{stage.task_id}")]
            assert await client.recv() == "CONNECTED"
            for message in (b"no frame at all", bytes(MAX_FRAME_BYTES)):
                await client.send(message)
                assert await stage.runner.receive() == message
                await stage.runner.send(message)
                assert await client.recv() == message
        assert await stage.runner.receive() is None

    on_stage(tmp_path, scenario)


def test_it_is_written_who_opened_it_and_how_much_went_over_it(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.send(OPENED)
        with capture_logs() as lines:
            async with stage.connect("9000?proto=udp") as client:
                await client.send(bytes(8))
                await stage.runner.receive()
                await stage.runner.send(bytes(100))
                assert await client.recv() == "CONNECTED"
                assert await client.recv() == bytes(100)
                await client.close()
            while len(lines) < 2:
                await asyncio.sleep(0.01)
        assert [(line["action"], line["actor"], line["object"], line["detail"]) for line in lines] == [
            ("workload.forward", OWNER, str(stage.task_id), "port 9000/udp"),
            (
                "workload.forward.end",
                OWNER,
                str(stage.task_id),
                "port 9000/udp, 8 bytes from the client, 100 to it",
            ),
        ]

    on_stage(tmp_path, scenario)


@pytest.mark.parametrize("breach", ["text", bytes(MAX_FRAME_BYTES + 1)])
@pytest.mark.parametrize("old", [True, False])
def test_what_can_be_no_frame_ends_it(tmp_path: Path, breach: str | bytes, old: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.send(OPENED)
        async with stage.connect(old=old) as client:
            await client.send(breach)
            heard, code = await ends(client)
            assert heard == ["CONNECTED", "Error: what came is no frame of a tunnel"]
            assert code == 1008

    on_stage(tmp_path, scenario)


@pytest.mark.parametrize("where", ["0", "65536", "http", "-1", "٨٠", "8888?proto=sctp", "8888?other=1"])
def test_what_is_no_port_is_refused(tmp_path: Path, where: str) -> None:
    async def scenario(stage: Stage) -> None:
        assert (await stage.refused(where)).response.status_code == 422
        assert stage.harness.runners.streams == []

    on_stage(tmp_path, scenario)


def test_only_who_may_use_the_workload_gets_in_and_no_page_of_another_site(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        for who, status in (("ulf", 403), ("vera", 403), (None, 401)):
            for old in (True, False):
                assert (await stage.refused(who=who, old=old)).response.status_code == status
        foreign = await stage.refused(who=None, headers={"Origin": "https://elsewhere.example"})
        assert foreign.response.status_code == 403
        assert stage.harness.runners.streams == []
        await stage.runner.send(OPENED)
        async with stage.connect(who="otto") as client:
            assert await client.recv() == "CONNECTED"

    on_stage(tmp_path, scenario)


@pytest.mark.parametrize(
    "error",
    [
        SwitchedOff("this node has no tunnels (TUNNEL_ENABLED = False)"),
        Unavailable("not connected just now"),
        NotFound("no workload"),
        Conflict("it ended"),
    ],
)
def test_what_the_runner_refuses_is_said_in_the_language_of_the_client(
    tmp_path: Path, error: KohakuRiverError
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.close(error)
        refused = (await stage.refused()).response
        assert refused.status_code == error.http_status
        assert str(error).encode() in bytes(refused.body or b"")
        stage.harness.runners.channel, runner = channel_pair()
        await runner.close(error)
        if isinstance(error, NotFound):
            assert (await stage.refused(old=True)).response.status_code == 404
            return
        async with stage.connect(old=True) as client:
            assert await ends(client) == ([f"Error: {error}"], 1012)

    on_stage(tmp_path, scenario)


def test_a_workload_that_may_run_soon_is_asked_for_again_and_one_that_has_ended_is_not(
    tmp_path: Path,
) -> None:
    async def scenario(stage: Stage) -> None:
        room, runs = stage.harness.room, stage.task_id
        waiting = await stage.harness.submit(OWNER, targets=["n1"])
        await stage.harness.call("otto", "POST", f"/api/approve/{waiting}")
        await room.accept_orders()
        stage.task_id = TaskId(int(waiting))
        refused = (await stage.refused()).response
        assert (refused.status_code, b"is assigning" in bytes(refused.body or b"")) == (503, True)
        async with stage.connect(old=True) as client:
            sentence = f"Error: {waiting} is assigning, and does not run just now; try again"
            assert await ends(client) == ([sentence], 1012)
        stage.task_id = runs
        await room.report(runs, TaskState.COMPLETED, 2, exit_code=0)
        assert (await stage.refused()).response.status_code == 409

    on_stage(tmp_path, scenario)


def test_it_ends_with_the_right_to_it_and_with_the_workload(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.runner.send(OPENED)
        async with stage.connect() as client:
            await stage.runner.close(Unavailable("the workload has ended"))
            assert await ends(client) == (["CONNECTED", "Error: the workload has ended"], 1012)
        stage.harness.runners.channel, stage.runner = channel_pair()
        await stage.runner.send(OPENED)
        async with stage.connect() as client:
            assert await client.recv() == "CONNECTED"
            (own,) = (await stage.harness.call(OWNER, "GET", "/api/auth/tokens")).json()
            await stage.harness.call(OWNER, "DELETE", f"/api/auth/tokens/{own['id']}")
            heard, code = await ends(client)
            assert code == 1008
            assert str(heard[-1]).startswith("Error: ")

    on_stage(tmp_path, scenario)


def test_a_user_has_few_tunnels_of_clients_without_credit_for_which_the_host_holds_what_is_not_read(
    tmp_path: Path,
) -> None:
    async def scenario(stage: Stage) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                stage.harness.runners.channel, runner = channel_pair()
                await runner.send(OPENED)
                client = await stack.enter_async_context(stage.connect(old=True))
                assert await client.recv() == "CONNECTED"
            async with stage.connect(old=True) as seventh:
                (sentence,), code = await ends(seventh)
                assert (str(sentence)[:25], code) == ("Error: too much of this c", 1012)
            for who, old in (
                ("otto", True),
                (OWNER, False),
            ):  # others', and one with credit, which waits nowhere
                stage.harness.runners.channel, runner = channel_pair()
                await runner.send(OPENED)
                async with stage.connect(who=who, old=old) as client:
                    assert await client.recv() == "CONNECTED"
        stage.harness.runners.channel, runner = channel_pair()
        await runner.send(OPENED)
        async with stage.connect(old=True) as client:
            assert await client.recv() == "CONNECTED"

    on_stage(tmp_path, scenario)


class Runner:
    """What is behind the runner's end, by the rules of a sandbox's client; it answers in capitals."""

    def __init__(self, channel: MemoryChannel) -> None:
        self.channel = channel
        self.end = TunnelEnd(Role.IS_ASKED, credit=True)
        self.opened: list[Opened] = []

    async def run(self) -> None:
        await self.channel.send(OPENED)
        while isinstance(frame := await self.channel.receive(), bytes):
            event = self.end.receive(frame)
            if isinstance(event, Opened):
                self.opened.append(event)
                self.end.connected(event.client_id)
            elif isinstance(event, Received):
                self.end.send(event.client_id, bytes(event.data).upper())
                self.end.take(event.client_id, len(event.data))
            while written := self.end.next_frame():
                await self.channel.send(written[1])


@pytest.mark.parametrize("subprotocols", [None, [Subprotocol(EARLIER_SUBPROTOCOL)]])
@pytest.mark.parametrize("transport", Transport)
def test_a_client_without_credit_is_served_at_its_one_port(
    tmp_path: Path, subprotocols: list[Subprotocol] | None, transport: Transport
) -> None:
    async def scenario(stage: Stage) -> None:
        runner = Runner(stage.runner)
        running = asyncio.ensure_future(runner.run())
        where = f"8888?proto={transport.name.lower()}"
        async with stage.connect(where, old=True, subprotocols=subprotocols) as client:
            assert await client.recv() == "CONNECTED"
            end = TunnelEnd(Role.OPENS, credit=False)
            client_id = end.open(transport, 22)
            assert client_id is not None
            sent, heard, over = 0, b"", False
            while not over:
                if sent < 40 and end.room(client_id):
                    end.send(client_id, b"a" * 1000)
                    sent += 1
                while written := end.next_frame():
                    await client.send(written[1])
                if sent == 40 and len(heard) == 40_000:
                    break
                message = await client.recv()
                assert isinstance(message, bytes)
                event = end.receive(message)
                assert isinstance(event, Connected | Received | Ended)
                heard += bytes(event.data) if isinstance(event, Received) else b""
            assert heard == b"A" * 40_000
        await running
        assert [(event.transport, event.port) for event in runner.opened] == [(transport, 8888)]

    on_stage(tmp_path, scenario)
