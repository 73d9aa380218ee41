"""The whole way of a forwarded port, with the real client of a sandbox at its end, without a sandbox."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from kohakuriver.client.streams.forward import ForwardedPort, Transport
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.api.workloads.endpoints import WorkloadEndpoints, WorkloadServices
from kohakuriver.runner.engines.contract.ports import PortTunnel
from kohakuriver.runner.engines.docker.sandboxes.tunnel_folders import RunnerPlace, TunnelFolders
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxIdentity, SandboxTunnels
from support.cluster.tunnel_path import TunnelPath, exchange, tunnel_path
from support.messages.raw_http import serving
from support.tunnel.services import CLIENT, build_client, datagram_service, echo, service

pytestmark = pytest.mark.anyio

_KEY, _NAME, _ID = "0" * 32, "kohakuriver-sandbox-1", "sandbox-1"
SECONDS = 60


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    build_client()


@dataclass
class Node:
    """A runner's side of one sandbox, whose client is a process of this machine."""

    tunnels: SandboxTunnels
    argv: list[str]
    process: "subprocess.Popen[bytes] | None" = None

    async def open_tunnel(self, task_id: TaskId) -> PortTunnel:
        return self.tunnels.open_tunnel(_ID, task_id)

    async def end_workload(self) -> bool:
        self.tunnels.end_tunnels(_ID)
        return await self.tunnels.are_streams_closed(_ID)

    async def start_client(self) -> None:
        self.process = subprocess.Popen(self.argv)
        await self.until(lambda: self.tunnels.connected(_ID))

    async def kill_client(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            await self.until(lambda: not self.tunnels.connected(_ID))

    async def until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Node]:
    tunnels = SandboxTunnels()
    tunnels.is_ready = True
    async with serving(WorkloadEndpoints(WorkloadServices(tunnels))) as (address, _):
        host, _, port = address.rpartition(":")
        folders = TunnelFolders(folder, RunnerPlace(host, int(port)))
        secret = folders.write(_KEY, _NAME)
        assert secret is not None
        tunnels.learn(SandboxIdentity(_ID, _NAME, "127.0.0.1", secret))
        made = Node(tunnels, [str(CLIENT), str(folder / "tunnels" / _KEY)])
        try:
            await made.start_client()
            yield made
        finally:
            await made.kill_client()


@contextlib.asynccontextmanager
async def way(folder: Path) -> AsyncIterator[tuple[Node, TunnelPath]]:
    async with (
        asyncio.timeout(SECONDS),
        node(folder / "node") as made,
        tunnel_path(folder, SimpleNamespace(ports=made)) as path,
    ):
        yield made, path


def local(port: int, transport: Transport = Transport.TCP) -> ForwardedPort:
    return ForwardedPort(transport, port, "127.0.0.1", 0)


async def test_connections_and_datagrams_go_the_whole_way(tmp_path: Path) -> None:
    async with (
        way(tmp_path) as (_, path),
        service(echo) as tcp,
        datagram_service() as udp,
        path.forwarding(local(tcp), local(udp, Transport.UDP)) as (news, _),
    ):
        data = bytes(range(256)) * 20_000
        assert await exchange(news.ports[0].local_port, data) == data
        answers = await asyncio.gather(
            *(exchange(news.ports[0].local_port, b"%d" % number) for number in range(300))
        )
        assert answers == [b"%d" % number for number in range(300)]
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        class Hears(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                heard.put_nowait(data)

        sender, _ = await loop.create_datagram_endpoint(
            Hears, remote_addr=("127.0.0.1", news.ports[1].local_port)
        )
        sender.sendto(b"question")
        assert await heard.get() == b"question"
        sender.close()


async def test_a_client_that_is_killed_ends_streams_and_new_ones_work(tmp_path: Path) -> None:
    async with (
        way(tmp_path) as (made, path),
        service(echo) as port,
        path.forwarding(local(port)) as (news, _),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", news.ports[0].local_port)
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
        await made.kill_client()
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        await made.start_client()
        await news.is_again.wait()
        assert await exchange(news.ports[0].local_port, b"again") == b"again"


async def test_what_a_workload_leaves_is_closed_before_it_is_confirmed(tmp_path: Path) -> None:
    """Streams of all kinds: open, being dialled, and of a service that reads nothing."""
    open_now = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        open_now += 1
        try:
            await _silence(reader)
        finally:
            open_now -= 1
            writer.close()

    async with (
        way(tmp_path) as (made, path),
        service(counted) as port,
        path.forwarding(local(port)) as (news, _),
    ):
        connections = [
            await asyncio.open_connection("127.0.0.1", news.ports[0].local_port) for _ in range(100)
        ]
        for _, writer in connections:
            writer.write(bytes(100_000))
        await made.until(lambda: open_now == 100)
        assert await made.end_workload()
        assert _established_to(port) == 0
        await made.until(lambda: bool(news.losses))
        assert news.losses == ["the workload has ended"]


async def _silence(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            continue


def _established_to(port: int) -> int:
    """Connections of this machine to the port that are established, as the kernel lists them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)
