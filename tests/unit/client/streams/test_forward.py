"""Ports of a workload on this machine, over host and runner to the fake engine."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from kohakuriver.client.connection import proven_connection
from kohakuriver.client.streams.forward import ForwardedPort, Transport
from kohakuriver.models.errors import InvalidInput, NotFound
from kohakuriver.runner.engines.contract.abilities import EngineAbility
from kohakuriver.runner.engines.fake.fake_engine import FakeEngine
from kohakuriver.runner.engines.fake.machine import FakeMachine
from kohakuriver.runner.tunnels.dialled_tunnel import DialledTunnel
from kohakuriver.wire.tunnel.frames import FrameType, read_header
from kohakuriver.wire.tunnel.life import Life
from support.cluster.tunnel_path import News, TunnelPath, exchange, tunnel_path
from support.engines.certificates import LabAuthority

SECONDS = 30
WEB = ForwardedPort(Transport.TCP, 8888, "127.0.0.1", 0)
DNS = ForwardedPort(Transport.UDP, 5353, "127.0.0.1", 0)


def on_path(folder: Path, scenario: Callable[[TunnelPath], Awaitable[None]]) -> None:
    async def run() -> None:
        async with tunnel_path(folder) as path, asyncio.timeout(SECONDS):
            await scenario(path)

    asyncio.run(run())


@asynccontextmanager
async def service(path: TunnelPath, port: int, serve: Callable[..., Awaitable[None]]) -> AsyncIterator[None]:
    """Have something listen on a port of the workload."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        path.lab.machine.listeners[path.task_id, port] = server.sockets[0].getsockname()
        yield


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()
    writer.write_eof()


async def ask(news: News, number: int, data: bytes) -> bytes:
    return await exchange(news.ports[number].local_port, data)


def test_bytes_of_many_connections_arrive_whole_and_each_direction_ends_by_itself(tmp_path: Path) -> None:
    async def scenario(path: TunnelPath) -> None:
        async with service(path, 8888, upper), path.forwarding(WEB) as (news, forwarder):
            for data in (b"hello", b"", b"a" * 3_000_000):
                assert await ask(news, 0, data) == data.upper()
            answers = await asyncio.gather(*(ask(news, 0, b"x" * (n + 1)) for n in range(200)))
            assert [len(answer) for answer in answers] == list(range(1, 201))
            assert forwarder.transfer.received_bytes == forwarder.transfer.sent_bytes

    on_path(tmp_path, scenario)


def test_several_ports_share_one_tunnel_and_datagrams_find_their_senders(tmp_path: Path) -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: object) -> None:
            self.transport.sendto(data[::-1], addr)  # type: ignore[attr-defined]

    async def scenario(path: TunnelPath) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        path.lab.machine.udp_listeners[path.task_id, 5353] = transport.get_extra_info("sockname")
        other = ForwardedPort(Transport.TCP, 9000, "127.0.0.1", 0)
        async with contextlib.AsyncExitStack() as stack:
            for port in (8888, 9000):
                await stack.enter_async_context(service(path, port, upper))
            async with path.forwarding(WEB, other, DNS) as (news, _):
                assert await ask(news, 0, b"one") == b"ONE"
                assert await ask(news, 1, b"two") == b"TWO"
                for number in range(3):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                        sender.setblocking(False)
                        place = ("127.0.0.1", news.ports[2].local_port)
                        await loop.sock_sendto(sender, f"ab{number}".encode(), place)
                        assert await loop.sock_recv(sender, 100) == f"{number}ba".encode()
                assert path.wire.connections == 1
        transport.close()

    on_path(tmp_path, scenario)


def test_who_connects_to_a_port_where_nothing_listens_is_cut_off_and_others_go_on(tmp_path: Path) -> None:
    async def scenario(path: TunnelPath) -> None:
        nothing = ForwardedPort(Transport.TCP, 7, "127.0.0.1", 0)
        async with service(path, 8888, upper), path.forwarding(WEB, nothing) as (news, _):
            with pytest.raises(ConnectionError):
                await ask(news, 1, b"anybody?")
            assert [sentence for sentence in news.refusals if "nothing listens on port 7" in sentence]
            assert await ask(news, 0, b"yes") == b"YES"

    on_path(tmp_path, scenario)


def test_one_connection_that_is_never_read_holds_up_no_other_and_memory_stays_bounded(tmp_path: Path) -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async def scenario(path: TunnelPath) -> None:
        async with service(path, 9000, pour), service(path, 8888, upper):
            poured = ForwardedPort(Transport.TCP, 9000, "127.0.0.1", 0)
            async with path.forwarding(WEB, poured) as (news, _):
                _, never_read = await asyncio.open_connection("127.0.0.1", news.ports[1].local_port, limit=1)
                for _ in range(20):
                    assert await ask(news, 0, b"q" * 100_000) == b"Q" * 100_000
                assert sent < 32 << 20  # windows, and the sockets' own buffers
                never_read.close()

    on_path(tmp_path, scenario)


def test_a_tunnel_that_is_cut_is_made_anew_at_the_same_local_ports(tmp_path: Path) -> None:
    async def scenario(path: TunnelPath) -> None:
        async with service(path, 8888, upper), path.forwarding(WEB) as (news, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", news.ports[0].local_port)
            writer.write(b"open")
            assert await reader.readexactly(4) == b"OPEN"
            path.wire.cut()
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
            await news.is_again.wait()
            assert await ask(news, 0, b"again") == b"AGAIN"
            assert len(news.losses) == 1

    on_path(tmp_path, scenario)


def test_what_is_idle_is_asked_and_stays_and_what_answers_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(path: TunnelPath) -> None:
        pinged = asyncio.Event()
        is_deaf = False
        send = DialledTunnel.send

        async def counted(tunnel: DialledTunnel, frame: bytes) -> None:
            if read_header(frame).type == FrameType.PING:
                pinged.set()
            if not is_deaf:
                await send(tunnel, frame)

        monkeypatch.setattr(DialledTunnel, "send", counted)
        life = partial(Life, ping_after=0.05, end_after=1.0)
        async with service(path, 8888, upper), path.forwarding(WEB, life=life) as (news, _):
            for _ in range(40):
                pinged.clear()
                await pinged.wait()
            assert news.losses == []
            is_deaf = True
            while not news.losses:
                await asyncio.sleep(0.01)
            assert news.losses == ["nothing was heard of the host for too long"]
            is_deaf = False
            await news.is_again.wait()
            assert await ask(news, 0, b"again") == b"AGAIN"

    on_path(tmp_path, scenario)


def test_what_the_host_refuses_ends_it_with_the_reason(tmp_path: Path) -> None:
    async def scenario(path: TunnelPath) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = ForwardedPort(Transport.TCP, 80, "127.0.0.1", taken.getsockname()[1])
            with pytest.raises(InvalidInput, match="cannot be used here"):
                await path.forwarding(port).__aenter__()
        await path.lab.engine.remove(path.task_id, 0)
        with pytest.raises(NotFound):
            await path.forwarding(WEB).__aenter__()

    on_path(tmp_path, scenario)


def test_it_works_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = LabAuthority.make("lab")
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    monkeypatch.setattr(proven_connection, "certified", lambda: trusting)

    async def scenario(path: TunnelPath) -> None:
        context = authority.server(tmp_path, "127.0.0.1")
        async with await asyncio.start_server(path.wire.serve, "127.0.0.1", 0, ssl=context) as proxy:
            path.address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            path.scheme = "https"
            async with service(path, 8888, upper), path.forwarding(WEB) as (news, _):
                assert await ask(news, 0, b"a" * 1_000_000) == b"A" * 1_000_000

    on_path(tmp_path, scenario)


def test_where_there_are_no_tunnels_the_reason_goes_the_whole_way(tmp_path: Path) -> None:
    async def run() -> None:
        sentence = "this node has no tunnels (TUNNEL_ENABLED = False)"
        lacking = FakeEngine(FakeMachine(), lacking={EngineAbility.PORTS: sentence})
        async with asyncio.timeout(SECONDS), tunnel_path(tmp_path, lacking) as path:
            with pytest.raises(InvalidInput, match="TUNNEL_ENABLED"):
                await path.forwarding(WEB).__aenter__()

    asyncio.run(run())


def test_it_ends_with_the_workload(tmp_path: Path) -> None:
    async def scenario(path: TunnelPath) -> None:
        async with service(path, 8888, upper), path.forwarding(WEB) as (news, _):
            assert await ask(news, 0, b"here") == b"HERE"
            await path.lab.engine.remove(path.task_id, 0)
            while not news.losses:
                await asyncio.sleep(0)
            assert "has ended" in news.losses[0]

    on_path(tmp_path, scenario)
