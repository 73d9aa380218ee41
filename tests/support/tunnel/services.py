"""The built client of a sandbox, and services for its streams."""

import asyncio
import contextlib
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import kohakuriver

CLIENT = Path(kohakuriver.__file__).parent / "tunnel_clients" / f"tunnel-client-{platform.machine()}"

_BUILD = Path(__file__).parents[3] / "tools/tunnel_client.py"

Service = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def build_client() -> None:
    """Done already, but where a test is run by itself after a change."""
    subprocess.run([sys.executable, _BUILD, "build"], check=True)


@contextlib.asynccontextmanager
async def service(serve: Service, *, host: str = "127.0.0.1", backlog: int = 2000) -> AsyncIterator[int]:
    """A TCP service on a port of its own."""
    server = await asyncio.start_server(serve, host, 0, backlog=backlog)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Datagrams(asyncio.DatagramProtocol):
    """Answers each with itself, twice where it says so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        for _ in range(2 if data == b"twice" else 1):
            self._transport.sendto(data, address)


@contextlib.asynccontextmanager
async def datagram_service() -> AsyncIterator[int]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Datagrams, local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
