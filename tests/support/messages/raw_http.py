"""HTTP by hand, for what no client library would send."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from kohakuriver.serving import ApiServer, bind_listener

DEADLINE_SECONDS = 20.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class RawClient:
    """One connection to `host:port`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: str) -> "RawClient":
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> bool:
        """Send it; False: the other end takes nothing more."""
        try:
            self._writer.write(data)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self._writer.drain()
        except (OSError, RuntimeError):  # the second: uvloop, of a connection that is closed
            return False
        return not self._reader.at_eof()

    async def flood(self, piece: bytes, answered: "asyncio.Task[int]") -> None:
        """Send a piece again and again until there is an answer; fails if 64 MiB are taken before."""
        left = (64 << 20) // len(piece)
        while not answered.done():
            assert left, "everything was taken"
            left -= 1
            if not await self.send(piece):
                break
            await asyncio.sleep(0)

    async def status(self) -> int:
        """Wait for an answer, read it whole; 0: the connection ended without one."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                head = await self._reader.readuntil(b"\r\n\r\n")
                if length := _LENGTH.search(head):
                    await self._reader.readexactly(int(length[1]))
            except (asyncio.IncompleteReadError, OSError):
                return 0
        return int(head.split(b" ", 2)[1])

    async def ended(self) -> None:
        """Wait until the other end has closed the connection."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            with contextlib.suppress(OSError):
                while await self._reader.read(65536):
                    pass

    def close(self) -> None:
        self._writer.close()


async def ask(address: str, request: bytes) -> int:
    """Make one request on a connection of its own; returns the status."""
    client = await RawClient.open(address)
    try:
        await client.send(request)
        return await client.status()
    finally:
        client.close()


def head(method: str, target: str, **headers: Any) -> bytes:
    """A request line and headers; `_` stands for `-` in their names."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    host = "" if "Host" in headers else "Host: localhost\r\n"
    return f"{method} {target} HTTP/1.1\r\n{host}{lines}\r\n".encode("latin-1")


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(app: Any, limits: Any = None) -> AsyncIterator[tuple[str, ApiServer]]:
    """Serve an application as the daemons do; yields `127.0.0.1:<port>` and the server."""
    listener = bind_listener("127.0.0.1", 0, "HOST_PORT")
    server = ApiServer(app, 1, limits)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", server
    finally:
        server.should_exit = True
        await running


@contextlib.asynccontextmanager
async def served_port(app: Any) -> AsyncIterator[int]:
    async with serving(app) as (address, _):
        yield int(address.rpartition(":")[2])
