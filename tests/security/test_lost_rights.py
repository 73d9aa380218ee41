"""Whatever takes a right away ends what it opened, over HTTP, WebSockets and SSH alike, and nobody else's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from kohakuriver.host.audit import AuditLog
from kohakuriver.host.gateway.late_gateway import LateGateway
from kohakuriver.host.gateway.vps_access import vps_access_of
from kohakuriver.host.ssh_key_pairs import new_key_pair
from kohakuriver.models.enums import Role, TaskState
from kohakuriver.serving import bind_listener
from kohakuriver.streams.forwarding import OPENED
from kohakuriver.wire.terminal_frames import SUBPROTOCOL
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL as TUNNEL
from support.host.api import ApiHarness, play
from support.messages.channels import channel_pair

LONG_SECONDS = 10
"""Far below any timeout that would end a stream for another reason."""


@dataclass
class Place:
    """A VPS of otto's that runs and is assigned to ursula, and the ways that lead to it."""

    harness: ApiHarness
    task_id: str
    http: httpx2.AsyncClient
    address: str
    ssh_port: int


@dataclass
class Opened:
    """`alive` sees something come through; `ended` waits until the client was cut off."""

    alive: Callable[[], Awaitable[None]]
    ended: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def download(place: Place, who: str) -> AsyncIterator[Opened]:
    harness = place.harness
    harness.runners.channel, runner = channel_pair()
    await runner.send(b"first")
    url = f"http://{place.address}/api/fs/{place.task_id}/archive?path=/etc"
    async with place.http.stream("GET", url, headers=harness.credential(who)) as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"first"

        async def alive() -> None:
            await runner.send(b"more")
            assert await anext(pieces) == b"more"

        async def ended() -> None:
            with pytest.raises(httpx2.RemoteProtocolError):  # not an end that looks whole
                await anext(pieces)

        yield Opened(alive, ended)


@contextlib.asynccontextmanager
async def terminal(place: Place, who: str) -> AsyncIterator[Opened]:
    harness = place.harness
    harness.runners.channel, runner = channel_pair()
    url = f"ws://{place.address}/ws/task/{place.task_id}/terminal"
    headers = harness.credential(who)
    async with connect(
        url, additional_headers=headers, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None
    ) as socket:

        async def alive() -> None:
            await runner.send(b"\1shown")
            assert await socket.recv() == b"\1shown"

        async def ended() -> None:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert closed.value.rcvd.reason

        await alive()
        yield Opened(alive, ended)


@contextlib.asynccontextmanager
async def tunnel(place: Place, who: str) -> AsyncIterator[Opened]:
    harness = place.harness
    harness.runners.channel, runner = channel_pair()
    await runner.send(OPENED)
    url = f"ws://{place.address}/ws/forward/{place.task_id}/8888"
    headers = harness.credential(who)
    offered = [Subprotocol(TUNNEL)]
    async with connect(url, additional_headers=headers, subprotocols=offered, proxy=None) as socket:
        assert await socket.recv() == "CONNECTED"

        async def alive() -> None:
            await runner.send(b"a frame")
            assert await socket.recv() == b"a frame"

        async def ended() -> None:
            assert str(await socket.recv()).startswith("Error: ")
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008

        await alive()
        yield Opened(alive, ended)


@contextlib.asynccontextmanager
async def ssh(place: Place, who: str) -> AsyncIterator[Opened]:
    harness = place.harness
    harness.runners.channel, runner = channel_pair()
    await runner.send(OPENED)
    async with asyncssh.connect(
        "127.0.0.1",
        place.ssh_port,
        known_hosts=None,
        username=who,
        password=harness.tokens[who],
        client_keys=None,
        agent_path=None,
        config=None,
    ) as connection:
        reader, _ = await connection.open_connection("lab", 22, encoding=None)

        async def alive() -> None:
            await runner.send(b"said")
            assert await reader.readexactly(4) == b"said"

        async def ended() -> None:
            with contextlib.suppress(asyncssh.Error):
                assert await reader.read() == b""

        await alive()
        yield Opened(alive, ended)


async def end_token(place: Place) -> None:
    harness = place.harness
    (own,) = (await harness.call("ursula", "GET", "/api/auth/tokens")).json()
    assert (await harness.call("ursula", "DELETE", f"/api/auth/tokens/{own['id']}")).status_code == 200


async def unassign(place: Place) -> None:
    path, user = f"/api/vps/{place.task_id}/assignments", {"username": "ursula"}
    assert (await place.harness.call("otto", "DELETE", path, params=user)).status_code == 200


async def deactivate(place: Place) -> None:
    await place.harness.room.add_user("ursula", Role.USER, active=False)


async def lower(place: Place) -> None:
    await place.harness.room.add_user("ursula", Role.VIEWER)


@pytest.mark.parametrize("loss", [end_token, unassign, deactivate, lower])
def test_a_right_that_is_lost_ends_what_it_opened_and_nobody_elses(
    tmp_path: Path, loss: Callable[[Place], Awaitable[None]]
) -> None:
    async def scenario(harness: ApiHarness) -> None:
        async with place_of(harness) as place, contextlib.AsyncExitStack() as stack:
            kinds = (download, terminal, tunnel, ssh)
            lost = [await stack.enter_async_context(kind(place, "ursula")) for kind in kinds]
            kept = [await stack.enter_async_context(kind(place, "otto")) for kind in kinds]
            for opened in (*lost, *kept):
                await opened.alive()
            await loss(place)
            for opened in lost:
                await opened.ended()
            for opened in kept:
                await opened.alive()

    play(tmp_path, scenario)


@contextlib.asynccontextmanager
async def place_of(harness: ApiHarness) -> AsyncIterator[Place]:
    await harness.room.join("n1")
    body = {"name": "lab", "target_hostname": "n1", "ssh_public_key": new_key_pair("otto").public}
    task_id = str((await harness.call("otto", "POST", "/api/vps/create", json=body)).json()["task_id"])
    given = {"username": "ursula"}
    assert (await harness.call("otto", "POST", f"/api/vps/{task_id}/assignments", json=given)).is_success
    await harness.room.accept_orders()
    await harness.room.report(int(task_id), TaskState.RUNNING, 1)
    listener = bind_listener("127.0.0.1", 0, "HOST_SSH_PROXY_PORT")
    port = listener.getsockname()[1]
    access = vps_access_of(harness.room.control, harness.auth, harness.runners)  # type: ignore[arg-type]
    gateway = LateGateway(port, new_key_pair(""), access, AuditLog())
    serving = asyncio.create_task(gateway.run(listener))
    try:
        async with (
            harness.served() as address,
            httpx2.AsyncClient(timeout=LONG_SECONDS) as http,
            asyncio.timeout(LONG_SECONDS),
        ):
            yield Place(harness, task_id, http, address, port)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
