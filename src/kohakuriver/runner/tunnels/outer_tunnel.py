"""One tunnel from outside into a sandbox, and the ids of its streams at both ends.

The runner decodes nothing but headers. Rules:

- What comes from outside is looked at first: a breach of the rules (no frame, CONNECT with an id in use) ends
  the outer tunnel, and what the sandbox's client would refuse is refused here, so that no user can have the
  client end what it shares with others.
- A stream has a number of its own at the sandbox, which no other of that connection ever gets.
- What the outer end does not read waits here, up to what the credit of its streams may come to; one that goes
  beyond that ends. What the sandbox does not read holds the outer end back.
- Datagrams that are too many are dropped, as on a network.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from kohakuriver.models.errors import InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.tunnels.held_bytes import HeldBytes
from kohakuriver.wire.tunnel.frames import (
    HEADER_BYTES,
    FrameType,
    Header,
    Transport,
    frame_of,
    read_header,
    read_sentence,
    sentence_payload,
    with_client_id,
)

MAX_STREAMS: Final = 1024
MAX_OPENING: Final = 64
"""CONNECTs of one outer tunnel that are not answered; a well-behaved end keeps to it by itself."""
MAX_HELD_BYTES: Final = 48 << 20
"""What waits for the outer end: 1,024 first windows, and 16 MiB by which they may have grown."""
MAX_FLOW_BYTES: Final = 4 << 20
"""Of it, datagrams."""
_BACKLOG_BYTES: Final = 256 << 10
"""What waits for the sandbox before the outer end is read on."""
_FRAME_COST_BYTES: Final = 64
"""What a frame takes beside its bytes, so that empty ones count as well."""
_PONG: Final = frame_of(Header(FrameType.PONG, Transport.TCP, 0, 0))
_OF_STREAMS: Final = frozenset({FrameType.DATA, FrameType.CLOSE, FrameType.WINDOW})
_ENDING: Final = frozenset({FrameType.CLOSE, FrameType.ERROR})


@dataclass(slots=True, eq=False)
class Route:
    """One stream: whose it is, and its ids there (`outer_id`) and at the sandbox (`inner_id`)."""

    outer: "OuterTunnel"
    outer_id: int
    inner_id: int
    transport: int
    is_opening: bool = True
    outer_said_end: bool = False
    inner_said_end: bool = False


class Inside(Protocol):
    """The sandbox's side, which several outer tunnels share."""

    def add_route(self, outer: "OuterTunnel", header: Header) -> Route | None:
        """Give the stream a number; None where the sandbox has as many as may be."""

    def drop_route(self, route: Route) -> None: ...

    def reset(self, inner_id: int) -> None:
        """Have the sandbox's client end that stream, and forget it. One that is over is none to end."""

    def has_frames(self, outer: "OuterTunnel") -> None:
        """It has something to write; to be called again after each time when it had nothing."""

    def left(self, outer: "OuterTunnel") -> None: ...


class OuterTunnel:
    """See `engines.contract.ports.PortTunnel`."""

    def __init__(
        self, inside: Inside, held: HeldBytes, task_id: TaskId, refused: Callable[[str], None]
    ) -> None:
        """`refused` is told why each time that a stream cannot be opened."""
        self.task_id = task_id
        self._inside = inside
        self._all_held = held
        self._refused = refused
        self._routes: dict[int, Route] = {}
        self._opening = 0
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._held: deque[bytes] = deque()
        self._flow_bytes = 0
        self.held_bytes = 0
        self._over: KohakuRiverError | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        held.join(self)

    # From outside

    async def send(self, frame: bytes) -> None:
        if self._over is None:
            self._take(frame)
        while self._backlog_bytes > _BACKLOG_BYTES and self._over is None:
            self._writable.clear()
            await self._writable.wait()
        if self._over is not None:
            raise self._over

    async def receive(self) -> bytes:
        while not self._held:
            if self._over is not None:
                raise self._over
            self._readable.clear()
            await self._readable.wait()
        frame = self._held.popleft()
        self._count(frame, -1)
        return frame

    def close(self) -> None:
        self.end(Unavailable("the tunnel was closed here"))
        self._drop_held()
        self._all_held.leave(self)

    def _take(self, frame: bytes) -> None:
        """Put the frame into the backlog if it is one of a stream; raises InvalidInput for a breach."""
        header = read_header(frame)
        if header.type == FrameType.PING:
            self._hold(_PONG)
            return
        route = self._routes.get(header.client_id)
        if header.type == FrameType.CONNECT:
            if route is not None:
                raise InvalidInput(f"CONNECT names the stream {header.client_id}, which is in use")
            route = self._connect(header)
        elif header.type == FrameType.ERROR and route is not None:
            self._forget(route)
        elif header.type not in _OF_STREAMS:
            return
        if route is None:
            return
        self._backlog.append(with_client_id(frame, route.inner_id))
        self._backlog_bytes += len(frame)
        if header.type == FrameType.CLOSE:
            route.outer_said_end = True
            self._forget_if_over(route)
        self._inside.has_frames(self)

    def _connect(self, header: Header) -> Route | None:
        route, refusal = None, ""
        if not header.port:
            refusal = "port 0 is none that anything listens on"
        elif len(self._routes) >= MAX_STREAMS:
            refusal = f"{MAX_STREAMS} connections are open, and no more may be"
        elif self._opening >= MAX_OPENING:
            refusal = f"{MAX_OPENING} connections wait for their answers, and no more may"
        elif (route := self._inside.add_route(self, header)) is None:
            refusal = "all users of this workload together have as many connections as may be"
        if route is None:
            self._refused(refusal)
            self._hold(frame_of(header._replace(type=FrameType.ERROR), sentence_payload(refusal)))
            return None
        self._routes[header.client_id] = route
        self._opening += 1
        return route

    # From the sandbox

    def next_frame(self) -> bytes | None:
        """Take what is to be written next to the sandbox."""
        if not self._backlog:
            return None
        frame = self._backlog.popleft()
        self._backlog_bytes -= len(frame)
        self._writable.set()
        return frame

    def receive_from(self, route: Route, kind: int, frame: bytes) -> None:
        """Take a frame of one of its streams."""
        if kind == FrameType.CONNECTED:
            self._answered(route)
        elif kind == FrameType.ERROR:
            if route.is_opening:
                self._refused(read_sentence(memoryview(frame)[HEADER_BYTES:]))
            self._forget(route)
        elif kind == FrameType.CLOSE:
            route.inner_said_end = True
            self._forget_if_over(route)
        if route.transport == Transport.UDP and kind == FrameType.DATA and self._flow_bytes > MAX_FLOW_BYTES:
            return
        self._hold(with_client_id(frame, route.outer_id))

    def end(self, error: KohakuRiverError) -> None:
        """Reset its streams at the sandbox; what came before is still delivered to who reads it."""
        if self._over is not None:
            return
        self._over = error
        for route in tuple(self._routes.values()):
            self._inside.reset(route.inner_id)
        for frame in self._backlog:
            # What was to end a stream, which is forgotten here, has not reached the client.
            if frame[0] in _ENDING:
                self._inside.reset(read_header(frame).client_id)
        self._routes.clear()
        self._backlog.clear()
        self._inside.left(self)
        self._readable.set()
        self._writable.set()

    def end_unread(self) -> None:
        """Give up what waits, since it is not read."""
        self._drop_held()
        self.end(Unavailable("too much was not read, so the tunnel was ended"))

    def _hold(self, frame: bytes) -> None:
        if self._over is not None:
            return
        self._held.append(frame)
        self._readable.set()
        self._count(frame, 1)
        if self.held_bytes > MAX_HELD_BYTES:
            self.end_unread()

    def _count(self, frame: bytes, sign: int) -> None:
        amount = len(frame) + _FRAME_COST_BYTES
        self.held_bytes += sign * amount
        if frame[1] == Transport.UDP:
            self._flow_bytes += sign * amount
        if sign > 0:
            self._all_held.add(amount)
        else:
            self._all_held.take(amount)

    def _drop_held(self) -> None:
        while self._held:
            self._count(self._held.popleft(), -1)

    def _answered(self, route: Route) -> None:
        if route.is_opening:
            route.is_opening = False
            self._opening -= 1

    def _forget_if_over(self, route: Route) -> None:
        if route.transport == Transport.UDP or (route.outer_said_end and route.inner_said_end):
            self._forget(route)

    def _forget(self, route: Route) -> None:
        self._answered(route)
        self._routes.pop(route.outer_id, None)
        self._inside.drop_route(route)
