"""A TCP connection as a `Line` of `streams.forwarding`, at whichever end of a forwarded connection it is."""

import asyncio

from kohakuriver.models.errors import Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES


class SocketLine:
    """`whose` is who is at the other end, for the sentence when it breaks off."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, whose: str) -> None:
        self._reader = reader
        self._writer = writer
        self._whose = whose

    async def read(self) -> bytes:
        try:
            return await self._reader.read(MAX_MESSAGE_BYTES)
        except OSError as error:
            raise self._broken(error) from error

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise self._broken(error) from error

    def end_output(self) -> None:
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    async def gone(self) -> None:
        """Never: TCP tells it by the errors of reading and writing only."""
        await asyncio.get_running_loop().create_future()

    def _broken(self, error: OSError) -> Unavailable:
        return Unavailable(f"{self._whose} broke the connection off: {error}")
