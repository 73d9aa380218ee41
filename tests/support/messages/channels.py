"""A `Channel` in memory: what one end sends, the other receives, with the waiting of a real one."""

import asyncio
from dataclasses import dataclass

from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES

_ROOM = 4
"""Messages that wait unread before a sender is held back."""


@dataclass(frozen=True)
class _StreamEnd:
    error: KohakuRiverError | None


class MemoryChannel:
    """One end; make both with `channel_pair`."""

    def __init__(self) -> None:
        self.other = self
        self._incoming: asyncio.Queue[str | bytes | _StreamEnd] = asyncio.Queue()
        self._room = asyncio.Semaphore(_ROOM)
        self._broken = asyncio.Event()
        self._closed = False
        self._over = False

    async def send(self, message: str | bytes) -> None:
        assert len(message if isinstance(message, bytes) else message.encode()) <= MAX_MESSAGE_BYTES
        while not self._closed and not self.other._closed and not self._broken.is_set():
            if await self._has_room():
                self.other._incoming.put_nowait(message)
                return
        raise Unavailable("the other end of the stream is gone")

    async def _has_room(self) -> bool:
        """Wait for room or for the end of the stream, and tell which of them came."""
        room = asyncio.ensure_future(self._room.acquire())
        broken = asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait([room, broken], return_when=asyncio.FIRST_COMPLETED)
            return room.done()
        finally:
            room.cancel()
            broken.cancel()

    async def receive(self) -> str | bytes | None:
        if self._over:
            return None
        message = await self._incoming.get()
        if not isinstance(message, _StreamEnd):
            self.other._room.release()
            return message
        self._over = True
        if message.error is not None:
            raise message.error
        return None

    async def close(self, error: KohakuRiverError | None = None) -> None:
        if not self._closed:
            self._closed = True
            self.other._incoming.put_nowait(_StreamEnd(error))
            self._part()

    def break_off(self) -> None:
        """As when the network fails: neither end hears a last message."""
        for end in (self, self.other):
            end._incoming.put_nowait(_StreamEnd(Unavailable("the connection broke")))
            end._closed = True
        self._part()

    def _part(self) -> None:
        self._broken.set()
        self.other._broken.set()


def channel_pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Two ends of one stream; `wire.channel` says how they behave."""
    one, two = MemoryChannel(), MemoryChannel()
    one.other, two.other = two, one
    return one, two
