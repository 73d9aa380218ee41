"""A connection that has become a stream: its bytes go on both ways as they come, whatever they mean.

Each leaves once the link's delay is over, in its order. What is under way is bounded: nothing more is read
until some of it has left, so that who does not read holds up who writes, as on a link. What breaks at one
end breaks at the other.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

_PIECE_BYTES = 16 << 10
_MOST_PIECES = 64
_CONNECT_SECONDS = 3
# As at the ends that this stands between, each of which would find out that the other is gone.
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_RESET = struct.pack("ii", 1, 0)
_log = logging.getLogger(__name__)

Delay = Callable[[], float]
"""Gives the seconds by which what comes now is delayed."""


@dataclass(frozen=True, slots=True)
class End:
    """One of the two connections of a stream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def dial(cls, place: str) -> "End":
        """`place`: `address:port`. Raises OSError, also for one that does not answer."""
        address, _, port = place.rpartition(":")
        async with asyncio.timeout(_CONNECT_SECONDS):
            return cls(*await asyncio.open_connection(address, int(port)))

    @classmethod
    def taken_over(cls, transport: asyncio.Transport) -> "End":
        """Of a connection that somebody else served so far, who still hears of its end."""
        reader = asyncio.StreamReader()
        protocol = _Successor(reader, transport.get_protocol())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop()))

    def keep_alive(self) -> None:
        """Notice when nobody is there any more."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def break_off(self) -> None:
        """Close it as one that breaks, unless it is closed."""
        transport = self.writer.transport
        if not transport.is_closing():
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()


class _Successor(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


async def join(near: End, far: End, delay: Delay) -> None:
    """Return when both directions have ended, or an end broke; both are closed then, whatever happens."""
    try:
        for end in (near, far):
            end.keep_alive()
        async with asyncio.TaskGroup() as group:
            group.create_task(_carry(near.reader, far.writer, delay))
            group.create_task(_carry(far.reader, near.writer, delay))
        for end in (near, far):
            end.writer.close()
            await end.writer.wait_closed()
    except* OSError as broken:
        _log.debug("a stream broke: %s", broken.exceptions)
    finally:
        for end in (near, far):
            end.break_off()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: Delay) -> None:
    """One direction, to the end of its input, which is passed on too."""
    link: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_PIECES)
    async with asyncio.TaskGroup() as group:
        group.create_task(_take_in(reader, link, delay))
        group.create_task(_let_out(link, writer))


async def _take_in(
    reader: asyncio.StreamReader, link: "asyncio.Queue[tuple[float, bytes]]", delay: Delay
) -> None:
    """An empty piece is the last one."""
    loop = asyncio.get_running_loop()
    data = b"-"
    while data:
        data = await reader.read(_PIECE_BYTES)
        await link.put((loop.time() + delay(), data))


async def _let_out(link: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due, data = await link.get()
        await asyncio.sleep(max(0.0, due - loop.time()))
        if not data:
            break
        writer.write(data)
        await writer.drain()
    writer.write_eof()
