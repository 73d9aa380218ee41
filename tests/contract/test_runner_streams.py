"""Streams from host to runner over real sockets: the runner's server and the host's client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from kohakuriver.host.dispatch.runner_streams import RunnerStreams
from kohakuriver.models.errors import Conflict, EngineFault, NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.routes import runner_api
from kohakuriver.runner.api.services import RunnerServices
from kohakuriver.runner.api.streams import StreamCall, StreamHandler
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.vps_service import VpsService, VpsServiceParts
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES, Channel
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side
from kohakuriver.wire.trust.sealed import CHALLENGE_BYTES
from kohakuriver.wire.trust.sealed_calls import Caller
from support.messages.raw_http import served_port

pytestmark = pytest.mark.anyio
HOST, NODE, OTHER = Identity.generate(), Identity.generate(), Identity.generate()
KEYS = HOST.link_keys(NODE.public_key, Side.HOST)
DEADLINE_SECONDS = 20.0


@asynccontextmanager
async def runner(handlers: Mapping[str, StreamHandler]) -> AsyncIterator[int]:
    """Serve a runner's API on a free port."""

    async def unused(_: object) -> None:
        raise AssertionError

    def no_engine(_: TaskId) -> Engine:
        raise Unavailable("no engine")

    services = RunnerServices(
        node="n1",
        keys=lambda: NODE.link_keys(HOST.public_key, Side.NODE),
        take_orders=unused,  # type: ignore[arg-type]
        list_images=unused,  # type: ignore[arg-type]
        sync_environment=unused,
        remove_environment=unused,
        faults=list,
        local_temp_dir=Path("/nonexistent"),
        leftovers=None,  # type: ignore[arg-type]
        vps=VpsService(
            VpsServiceParts(no_engine, list, lambda _: None, set, 3, lambda: None, Path("/nonexistent"))
        ),
        engine_of=no_engine,
        streams=handlers,
    )
    async with served_port(runner_api(services)) as port:
        yield port


@asynccontextmanager
async def host(port: int | Callable[[], int], keys: LinkKeys = KEYS) -> AsyncIterator[RunnerStreams]:
    """The host's end of streams to the runner that listens on the port now."""

    def whereabouts(_node: str) -> tuple[LinkKeys, tuple[str, str]]:
        return keys, ("127.0.0.1", f"http://n1:{port if isinstance(port, int) else port()}")

    streams = RunnerStreams(whereabouts)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield streams
    finally:
        await streams.close()


async def echo(call: StreamCall, channel: Channel) -> None:
    await channel.send(f"{call.path['task_id']} {dict(call.query)}")
    while (message := await channel.receive()) is not None:
        await channel.send(message)


async def test_a_stream_carries_messages_both_ways_and_ends_in_order() -> None:
    async with runner({"/ws/{task_id}/echo": echo}) as port, host(port) as streams:
        channel = await streams.open("n1", "/ws/7/echo?a=1&b=%20x")
        assert await channel.receive() == "7 {'a': '1', 'b': ' x'}"
        for message in ("text ü", b"\0\xff" * 1000, bytes(MAX_MESSAGE_BYTES)):
            await channel.send(message)
            assert await channel.receive() == message
        await channel.close()


async def test_what_the_runner_refuses_is_raised_at_the_host() -> None:
    async def refuse(_call: StreamCall, _channel: Channel) -> None:
        raise Conflict("VPS 7 is paused")

    async def broken(_call: StreamCall, _channel: Channel) -> None:
        raise ZeroDivisionError

    async with runner({"/ws/refuse": refuse, "/ws/broken": broken}) as port, host(port) as streams:
        for target, error in (("/ws/refuse", Conflict), ("/ws/broken", EngineFault), ("/ws/x", NotFound)):
            channel = await streams.open("n1", target)
            with pytest.raises(error):
                await channel.receive()
            await channel.close()


async def test_a_handler_learns_that_the_host_is_gone() -> None:
    ended: asyncio.Queue[object] = asyncio.Queue()

    async def listen(_call: StreamCall, channel: Channel) -> None:
        try:
            ended.put_nowait(await channel.receive())
        except Unavailable as error:
            ended.put_nowait(error)

    async with runner({"/ws/listen": listen}) as port, host(port) as streams:
        channel = await streams.open("n1", "/ws/listen")
        await channel.close()
        assert await ended.get() is None
        channel = await streams.open("n1", "/ws/listen")
        await streams.close()
        assert isinstance(await ended.get(), Unavailable)


async def test_who_does_not_read_holds_the_sender_back() -> None:
    """Otherwise a terminal that nobody reads would fill the memory of the runner."""
    sent = 0

    async def pour(_call: StreamCall, channel: Channel) -> None:
        nonlocal sent
        while sent < 4000:
            await channel.send(bytes(MAX_MESSAGE_BYTES))
            sent += 1

    async with runner({"/ws/pour": pour}) as port, host(port) as streams:
        channel = await streams.open("n1", "/ws/pour")
        await channel.receive()
        before = -1
        while before != sent:  # until nothing more fits between the two
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 400
        for _ in range(sent + 10):
            await channel.receive()
        assert sent > before
        await channel.close()


async def test_who_has_the_request_alone_opens_nothing() -> None:
    """Its proof is good, but it does not know what to answer to this challenge."""
    reached = False

    async def reach(_call: StreamCall, _channel: Channel) -> None:
        nonlocal reached
        reached = True

    async with runner({"/ws/shell": reach}) as port, aiohttp.ClientSession() as session:
        caller, url = Caller(Side.HOST), f"http://127.0.0.1:{port}/ws/shell"
        first = caller.call("n1", KEYS, "GET", "/ws/shell")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, headers={"Authorization": first.credential})
        refusal = caller.prove(first, KEYS, refused.value.status, refused.value.headers or {}, 0)
        assert caller.must_call_again(first, refusal)
        again = {"Authorization": caller.call("n1", KEYS, "GET", "/ws/shell").credential}
        async with session.ws_connect(url, headers=again) as socket:
            assert len((await socket.receive()).data) == CHALLENGE_BYTES
            await socket.send_bytes(b"whatever was recorded")
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await session.ws_connect(url, headers=again)
        assert not reached


async def test_streams_open_again_after_the_runner_began_anew() -> None:
    """The host's process is the same, the runner's is not."""
    ports: list[int] = []
    async with host(lambda: ports[-1]) as streams:
        for _ in range(2):
            async with runner({"/ws/{task_id}/echo": echo}) as port:
                ports.append(port)
                await (await streams.open("n1", "/ws/7/echo")).close()


async def test_another_host_is_not_let_in() -> None:
    others = OTHER.link_keys(NODE.public_key, Side.HOST)
    async with runner({"/ws/{task_id}/echo": echo}) as port, host(port, others) as streams:
        with pytest.raises(Unavailable, match="403"):
            await streams.open("n1", "/ws/7/echo")


async def test_a_node_that_is_unreachable_is_said_to_be() -> None:
    async with host(1) as streams:
        with pytest.raises(Unavailable, match="n1"):
            await streams.open("n1", "/ws/7/echo")
