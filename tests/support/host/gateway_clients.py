"""Clients of the SSH gateway, and the service in a VPS that answers them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from support.host.gateway import GatewayHarness

SOON_SECONDS = 10
"""Far below any timeout that would end a connection for another reason."""


class EchoServer:
    """Stands in for a VPS's SSH: answers each piece with itself, and counts what it could send.

    With `flood` it sends without end instead, with `mute` it says nothing and never ends.
    """

    def __init__(self, flood: bool = False, mute: bool = False) -> None:
        self.flood = flood
        self.mute = mute
        self.sent_bytes = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.flood:
                while True:
                    writer.write(bytes(65536))
                    await writer.drain()
                    self.sent_bytes += 65536
            while self.mute:
                await reader.read()
                await asyncio.sleep(3600)
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other end is what is tested
        finally:
            writer.close()


def play(harness: GatewayHarness, scenario: Callable[[EchoServer], Awaitable[None]], **kind: bool) -> None:
    """Run a scenario while VPSs answer."""

    async def run() -> None:
        echo = EchoServer(**kind)
        port = await echo.start()
        harness.dials = dict.fromkeys(harness.vps, port)
        async with asyncio.timeout(60):
            await scenario(echo)

    asyncio.run(run())


@asynccontextmanager
async def connected(
    harness: GatewayHarness, token: str | None = None, key: Path | None = None, **options: Any
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    connection = await asyncssh.connect(
        "127.0.0.1",
        harness.port,
        known_hosts=([asyncssh.import_public_key(harness.public_key)], [], []),
        password=token,
        client_keys=[str(key)] if key else None,
        agent_path=None,
        config=None,
        **{"username": "anyone", **options},
    )
    async with connection:
        yield connection


async def echoed(connection: asyncssh.SSHClientConnection, host: str, port: int = 22) -> bytes:
    """What a VPS says to `hello`; raises ChannelOpenError if there is no way to it."""
    reader, writer = await connection.open_connection(host, port, encoding=None)
    writer.write(b"hello")
    writer.write_eof()
    said: bytes = await reader.read()
    writer.close()
    return said


async def refusal(connection: asyncssh.SSHClientConnection, host: str, port: int = 22) -> str:
    with pytest.raises(asyncssh.ChannelOpenError) as refused:
        await echoed(connection, host, port)
    return refused.value.reason


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(SOON_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)
    assert condition(), what
