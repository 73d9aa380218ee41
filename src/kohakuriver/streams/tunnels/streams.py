"""One end of a tunnel with what its streams lead to: sockets, at whichever end. Frames in, frames out.

Whoever has the tunnel calls `receive` with what comes, and writes what `next_frame` gives.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from kohakuriver.wire.tunnel.end import TunnelEnd
from kohakuriver.wire.tunnel.events import Connected, Ended, Event, Finished, Opened, Received, Reset
from kohakuriver.wire.tunnel.frames import Transport

_TICK_SECONDS: Final = 5.0
_READ_BYTES: Final = 256 << 10


class StreamUser(Protocol):
    """What one stream leads to. It is dropped when it has ended, been reset, or called `drop`."""

    def received(self, data: memoryview) -> None: ...

    def room_again(self) -> None:
        """There may be room to send."""

    def finished(self) -> None:
        """The other end sends no more."""

    def ended(self, sentence: str | None) -> None:
        """It is over in both directions; None: in order."""


class TunnelStreams:
    """`opened` is called for each stream that the other end asks for."""

    def __init__(self, end: TunnelEnd, opened: Callable[[Opened], None] | None = None) -> None:
        self.end = end
        self.sent_bytes = self.received_bytes = 0
        """Of the streams' own bytes, as this end has written and read them."""
        self.read_buffer = memoryview(bytearray(_READ_BYTES))
        """What comes from a socket, until its stream has taken it, which is at once."""
        self._opened = opened
        self._users: dict[int, StreamUser] = {}
        self._to_write = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._over = False

    def __len__(self) -> int:
        return len(self._users)

    def add(self, client_id: int, transport: Transport, user: StreamUser) -> None:
        self._users[client_id] = user
        if transport is Transport.UDP and self._tick is None:
            self._tick = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._look_at_flows)
        self.wake()

    def drop(self, client_id: int) -> None:
        self._users.pop(client_id, None)

    def wake(self) -> None:
        """There may be something to write."""
        self._to_write.set()

    def close(self, sentence: str) -> None:
        """End what the streams lead to; nothing is written any more."""
        self._over = True
        if self._tick is not None:
            self._tick.cancel()
        for client_id, user in tuple(self._users.items()):
            self.drop(client_id)
            user.ended(sentence)

    def receive(self, frame: bytes) -> None:
        """Raises InvalidInput for a breach of the rules that ends the tunnel."""
        event = self.end.receive(frame)
        if isinstance(event, Opened):
            if self._opened is not None:
                self._opened(event)
        elif event is not None:
            self._tell(event)
        self.wake()

    async def next_frame(self) -> bytes:
        while (written := self.end.next_frame()) is None:
            self._to_write.clear()
            await self._to_write.wait()
        client_id, frame = written
        if (user := self._users.get(client_id)) is not None:
            user.room_again()
        return frame

    def _tell(self, event: Event) -> None:
        user = self._users.get(event.client_id)
        if user is None:
            if isinstance(event, Received):
                self.end.take(event.client_id, len(event.data))
            return
        match event:
            case Received():
                self.received_bytes += len(event.data)
                user.received(event.data)
            case Finished():
                user.finished()
            case Ended() | Reset():
                self.drop(event.client_id)
                user.ended(event.sentence if isinstance(event, Reset) else None)
            case Connected():
                user.room_again()
            case _:
                user.room_again()

    def _look_at_flows(self) -> None:
        loop = asyncio.get_running_loop()
        for ended in self.end.tick(loop.time()):
            self._tell(ended)
            self.wake()
        self._tick = None if self._over else loop.call_later(_TICK_SECONDS, self._look_at_flows)
