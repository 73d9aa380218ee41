"""A tunnel with credit for a client that knows none: an end of both kinds, between the two.

Such a client asks for connections to one port, which it was let in for, whatever its frames name. Rules: what
it sends is read on only while less than 1 MiB of it waits; what is sent to it counts as taken when it was
written; CLOSE of it ends a connection, and what the service still says is dropped, for a while.
"""

from dataclasses import dataclass, field
from typing import Final

from kohakuriver.streams.tunnels.held_stream import HeldStream
from kohakuriver.wire.tunnel.end import MAX_UNREAD_BYTES, TunnelEnd
from kohakuriver.wire.tunnel.events import (
    Connected,
    Ended,
    Event,
    Finished,
    Opened,
    Received,
    Reset,
    RoomAgain,
)
from kohakuriver.wire.tunnel.frames import Transport
from kohakuriver.wire.tunnel.table import Role, TunnelBounds

_BOUNDS: Final = TunnelBounds(streams=128, growth_bytes=1 << 20, frame_bytes=16 << 10)
"""Such a client knows frames of this size."""
MOST_HELD_BYTES: Final = 10 << 20
"""What may wait here: the windows, a frame of each stream either way, and what the client sent."""
LINGER_SECONDS: Final = 10.0
"""How long a service may take to end a connection whose client has closed it."""


@dataclass(slots=True, eq=False)
class _Crossing:
    outer_id: int
    inner_id: int
    inward: HeldStream = field(default_factory=HeldStream)
    outward: HeldStream = field(default_factory=HeldStream)
    client_left: bool = False
    service_finished: bool = False
    lingers_since: float | None = None


class WithoutCredit:
    """`from_client`, `to_client`: frames without credit; the others: frames with it. It knows no clock."""

    def __init__(self, transport: Transport, port: int) -> None:
        self._transport = transport
        self._port = port
        self._outer = TunnelEnd(Role.IS_ASKED, credit=False, bounds=_BOUNDS)
        self._inner = TunnelEnd(Role.OPENS, credit=True, bounds=_BOUNDS)
        self._by_outer: dict[int, _Crossing] = {}
        self._by_inner: dict[int, _Crossing] = {}
        self.waiting_bytes = 0
        """What the client sent and no service has room for."""

    @property
    def may_read_client(self) -> bool:
        return self.waiting_bytes < MAX_UNREAD_BYTES

    def from_client(self, frame: bytes) -> None:
        """Raises InvalidInput for a breach of the rules."""
        event = self._outer.receive(frame)
        if isinstance(event, Opened):
            self._open(event)
        elif event is not None and (crossing := self._by_outer.get(event.client_id)) is not None:
            self._of_client(crossing, event)
            self._move(crossing)

    def from_runner(self, frame: bytes) -> None:
        """Raises InvalidInput for a breach of the rules."""
        event = self._inner.receive(frame)
        if event is not None and (crossing := self._by_inner.get(event.client_id)) is not None:
            self._of_service(crossing, event)
            self._move(crossing)

    def to_client(self) -> bytes | None:
        return self._written(self._outer, self._by_outer)

    def to_runner(self) -> bytes | None:
        return self._written(self._inner, self._by_inner)

    def tick(self, now: float) -> None:
        """To be called every few seconds."""
        for ended in self._outer.tick(now):
            if (crossing := self._by_outer.get(ended.client_id)) is not None:
                self._inner.finish(crossing.inner_id)
                self._drop(crossing)
        for crossing in tuple(self._by_inner.values()):
            if crossing.client_left and crossing.lingers_since is None:
                crossing.lingers_since = now
            elif crossing.lingers_since is not None and now - crossing.lingers_since >= LINGER_SECONDS:
                self._inner.reset(crossing.inner_id, "its client has closed it")
                self._drop(crossing)

    def _open(self, event: Opened) -> None:
        inner_id = self._inner.open(self._transport, self._port)
        if inner_id is None:
            self._outer.reset(event.client_id, f"{len(self._inner)} connections are open, and no more may be")
            return
        crossing = _Crossing(event.client_id, inner_id)
        self._by_outer[event.client_id] = self._by_inner[inner_id] = crossing

    def _of_client(self, crossing: _Crossing, event: Event) -> None:
        match event:
            case Received(data=data) if self._transport is Transport.UDP:
                self._inner.send(crossing.inner_id, data)
            case Received(data=data):
                crossing.inward.add(data)
                self.waiting_bytes += len(data)
            case Ended():
                self._leave(crossing)
            case Reset(sentence=sentence):
                self._inner.reset(crossing.inner_id, sentence)
                self._drop(crossing)

    def _of_service(self, crossing: _Crossing, event: Event) -> None:
        match event:
            case Connected():
                self._outer.connected(crossing.outer_id)
            case Received(data=data) if self._transport is Transport.UDP:
                self._outer.send(crossing.outer_id, data)
            case Received(data=data) if crossing.client_left:
                self._inner.take(crossing.inner_id, len(data))
            case Received(data=data):
                crossing.outward.add(data)
            case Finished() | Ended():
                crossing.service_finished = True
            case Reset(sentence=sentence):
                self._outer.reset(crossing.outer_id, sentence)
                self._drop(crossing)
            case RoomAgain():
                return

    def _leave(self, crossing: _Crossing) -> None:
        """The client says no more and hears no more."""
        crossing.client_left = True
        self._by_outer.pop(crossing.outer_id, None)
        self._inner.take(crossing.inner_id, len(crossing.outward))
        crossing.outward.clear()

    def _move(self, crossing: _Crossing) -> None:
        """Pass on what has room, and the ends behind it."""
        inner_id, outer_id = crossing.inner_id, crossing.outer_id
        if inner_id not in self._by_inner:
            return
        moved = _pass_on(crossing.inward, self._inner, inner_id)
        self.waiting_bytes -= moved
        if not crossing.client_left:
            self._outer.take(outer_id, moved)
            self._inner.take(inner_id, _pass_on(crossing.outward, self._outer, outer_id))
        if crossing.service_finished and not crossing.client_left and not crossing.outward:
            self._outer.finish(outer_id)
            self._leave(crossing)
        if crossing.client_left and not crossing.inward:
            self._inner.finish(inner_id)
            if crossing.service_finished or self._transport is Transport.UDP:
                self._drop(crossing)

    def _drop(self, crossing: _Crossing) -> None:
        self._by_inner.pop(crossing.inner_id, None)
        if self._by_outer.get(crossing.outer_id) is crossing:
            del self._by_outer[crossing.outer_id]
        self.waiting_bytes -= len(crossing.inward)
        crossing.inward.clear()

    def _written(self, end: TunnelEnd, crossings: dict[int, _Crossing]) -> bytes | None:
        written = end.next_frame()
        if written is None:
            return None
        if (crossing := crossings.get(written[0])) is not None:
            self._move(crossing)
        return written[1]


def _pass_on(held: HeldStream, end: TunnelEnd, client_id: int) -> int:
    """Return how many bytes the end took: one frame at a time, so that it holds little, and no small ones."""
    moved = 0
    while held and not end.waiting(client_id) and (room := end.room(client_id)) > 0:
        piece = held.take(min(room, _BOUNDS.frame_bytes))
        end.send(client_id, piece)
        moved += len(piece)
    return moved
