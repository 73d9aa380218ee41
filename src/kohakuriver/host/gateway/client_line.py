"""One forwarded connection at the client's end: a channel of its SSH connection as a `Line`.

It holds little in either direction. A client that sends more is held back by its window; towards a client
that does not read, writing waits for the channel and for the connection under it.
"""

import asyncio

import asyncssh
from asyncssh import SSHTCPChannel

from kohakuriver.models.errors import Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES

WINDOW_BYTES = 1 << 20
"""What a client may send ahead of what was read: enough to keep a fast link over some distance busy."""

_HELD_BYTES = MAX_MESSAGE_BYTES // 2
_UNSENT_BYTES = 2 * MAX_MESSAGE_BYTES


class ClientLine(asyncssh.SSHTCPSession[bytes]):
    """Made for a channel that is being opened. `room`: set while the connection under it takes more."""

    def __init__(self, room: asyncio.Event) -> None:
        self._connection_room = room
        self._channel_room = asyncio.Event()
        self._channel_room.set()
        self._channel: SSHTCPChannel[bytes] | None = None
        self._read = bytearray()
        self._news = asyncio.Event()
        self._input_ended = False
        self._gone = asyncio.Event()

    async def read(self) -> bytes:
        while not self._read and not self._input_ended:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._read[:MAX_MESSAGE_BYTES])
        del self._read[:MAX_MESSAGE_BYTES]
        if self._channel is not None and len(self._read) < _HELD_BYTES:
            self._channel.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        await self._connection_room.wait()
        if self._channel is None or self._channel.is_closing():
            raise Unavailable("the client closed the connection")
        self._channel.write(data)
        await self._channel_room.wait()

    def end_output(self) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write_eof()

    async def gone(self) -> None:
        await self._gone.wait()

    def close(self) -> None:
        """Close the channel once what was written is sent."""
        if self._channel is not None:
            self._channel.close()

    # Called by the SSH connection

    def connection_made(self, chan: SSHTCPChannel[bytes]) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(high=_UNSENT_BYTES)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._read += data
        self._news.set()
        if self._channel is not None and len(self._read) >= _HELD_BYTES:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        self._input_ended = True
        self._news.set()
        return True  # the other direction stays open

    def connection_lost(self, exc: Exception | None) -> None:
        self._input_ended = True
        self._news.set()
        self._channel_room.set()
        self._gone.set()

    def pause_writing(self) -> None:
        self._channel_room.clear()

    def resume_writing(self) -> None:
        self._channel_room.set()
