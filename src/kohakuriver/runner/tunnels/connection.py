"""One proven connection of a sandbox, and whether the client at its other end still lives.

Outer tunnels share it. Rules: what comes is passed on to whose it is and never waits for a reader, so one
that does not read slows no other; what goes to the sandbox is one frame of each outer tunnel in turns, after
signs of life and resets. Resets are confirmed by a question that goes after them, CONNECT for port 0 with an
id of its own: frames are taken in order, so its refusal says that all before it was done.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn, Protocol

from kohakuriver.models.errors import InvalidInput, KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.tunnels.held_bytes import HeldBytes
from kohakuriver.runner.tunnels.outer_tunnel import OuterTunnel, Route
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.wire.tunnel.frames import (
    FrameType,
    Header,
    Transport,
    frame_of,
    read_header,
    sentence_payload,
)
from kohakuriver.wire.tunnel.life import Due, Life

NOT_GOOD = 1008
"""Close codes of WebSockets: what came breaks the rules, and the other end may connect again."""
COME_AGAIN = 1012
MAX_STREAMS: Final = 4096
"""Of all outer tunnels of a sandbox."""
_CLOSE_SECONDS = 2.0
_IDS = 1 << 32
_OF_STREAMS: Final = frozenset(
    {FrameType.CONNECTED, FrameType.DATA, FrameType.CLOSE, FrameType.ERROR, FrameType.WINDOW}
)
_LEFT: Final = sentence_payload("its user left")


class TunnelSocket(Protocol):
    async def receive(self) -> str | bytes | None:
        """Return the next message, None when there will be no more."""

    async def send(self, message: str | bytes) -> None:
        """Raises Unavailable once the other end is gone."""

    async def close(self, code: int) -> None: ...


class TunnelConnection:
    """`run` once; `end` has it stop. `has_opened`: a stream, since its streams were last confirmed closed."""

    def __init__(self, socket: TunnelSocket, life: Callable[[float], Life], held: HeldBytes) -> None:
        self._socket = socket
        self._clock = asyncio.get_running_loop().time
        self._life = life(self._clock())
        self._until = asyncio.timeout(None)
        self._held = held
        self.has_opened = False
        self._last_id = 0
        self._routes: dict[int, Route] = {}
        self._outers: set[OuterTunnel] = set()
        self._turns: deque[OuterTunnel] = deque()
        self._waiting: set[OuterTunnel] = set()
        self._resets: deque[int] = deque()
        self._signs: deque[FrameType] = deque()
        self._questions: deque[int] = deque()
        self._confirming: dict[int, asyncio.Event] = {}
        self._is_lost = False
        self._to_write = asyncio.Event()

    def end(self) -> None:
        if not self._is_lost:
            self._until.reschedule(self._clock())

    def open_tunnel(self, task_id: TaskId, refused: Callable[[str], None]) -> OuterTunnel:
        if self._is_lost:
            raise Unavailable("the connection to the workload's tunnel client was just lost; try again")
        outer = OuterTunnel(self, self._held, task_id, refused)
        self._outers.add(outer)
        return outer

    def end_tunnels(self, reason: KohakuRiverError) -> None:
        for outer in tuple(self._outers):
            outer.end(reason)

    async def until_closed(self) -> None:
        """Return when the client has said that it has none of the streams that were ended.

        Raises Unavailable where it is gone. Nothing is asked where there was no stream since it said so last.
        """
        if not self.has_opened:
            return
        number = self._next_id()
        confirmed = self._confirming[number] = asyncio.Event()
        self._questions.append(number)
        self._to_write.set()
        try:
            await confirmed.wait()
        finally:
            del self._confirming[number]
        if self._is_lost:
            raise Unavailable("the tunnel client was gone before it had answered")
        self.has_opened = bool(self._routes)

    async def run(self) -> str:
        """Serve until it is over; returns why it is."""
        code, reason = COME_AGAIN, "it was ended here"
        try:
            async with self._until:
                await first_to_end(self._read_frames(), self._write_frames(), self._watch_silence())
        except TimeoutError:
            pass
        except KohakuRiverError as error:
            reason = str(error)
            code = NOT_GOOD if isinstance(error, InvalidInput) else COME_AGAIN
        finally:
            self._lose_all()
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._socket.close(code)
        return reason

    def _lose_all(self) -> None:
        self._is_lost = True
        self.end_tunnels(Unavailable("the connection to the workload's tunnel client was lost"))
        for confirmed in self._confirming.values():
            confirmed.set()

    # What outer tunnels ask for

    def add_route(self, outer: OuterTunnel, header: Header) -> Route | None:
        if len(self._routes) >= MAX_STREAMS:
            return None
        self.has_opened = True
        inner_id = self._next_id()
        route = self._routes[inner_id] = Route(outer, header.client_id, inner_id, header.transport)
        return route

    def _next_id(self) -> int:
        while True:
            self._last_id = (self._last_id + 1) % _IDS
            if self._last_id not in self._routes and self._last_id not in self._confirming:
                return self._last_id

    def drop_route(self, route: Route) -> None:
        self._routes.pop(route.inner_id, None)

    def reset(self, inner_id: int) -> None:
        self._routes.pop(inner_id, None)
        self._resets.append(inner_id)
        self._to_write.set()

    def has_frames(self, outer: OuterTunnel) -> None:
        if outer not in self._waiting:
            self._waiting.add(outer)
            self._turns.append(outer)
            self._to_write.set()

    def left(self, outer: OuterTunnel) -> None:
        self._outers.discard(outer)

    # From the sandbox

    async def _read_frames(self) -> NoReturn:
        while True:
            frame = await self._next()
            self._life.heard(self._clock())
            self._receive(frame)

    async def _next(self) -> bytes:
        message = await self._socket.receive()
        if message is None:
            raise Unavailable("the client is gone")
        if isinstance(message, str):
            raise InvalidInput("what came is no frame")
        return message

    async def _watch_silence(self) -> NoReturn:
        while True:
            await asyncio.sleep(max(0.0, self._life.wakes_at() - self._clock()))
            due = self._life.due(self._clock())
            if due is Due.END:
                raise Unavailable("nothing was heard for too long")
            if due is Due.PING:
                self._sign(FrameType.PING)

    def _sign(self, kind: FrameType) -> None:
        if kind not in self._signs:
            self._signs.append(kind)
            self._to_write.set()

    def _receive(self, frame: bytes) -> None:
        header = read_header(frame)
        kind = header.type
        if kind == FrameType.PING:
            self._sign(FrameType.PONG)
        elif kind == FrameType.CONNECT:
            raise InvalidInput("CONNECT came to the end that opens")
        elif (route := self._routes.get(header.client_id)) is not None:
            if kind in _OF_STREAMS:
                route.outer.receive_from(route, kind, frame)
        elif kind == FrameType.ERROR and (confirmed := self._confirming.get(header.client_id)) is not None:
            confirmed.set()

    # To the sandbox

    async def _write_frames(self) -> NoReturn:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            try:
                async with asyncio.timeout(None) as limit:
                    while (frame := self._next_frame()) is not None:
                        limit.reschedule(self._clock() + self._life.end_after)
                        await self._socket.send(frame)
            except TimeoutError as error:
                raise Unavailable("nothing was taken for too long") from error

    def _next_frame(self) -> bytes | None:
        if self._signs:
            return _bare_frame(self._signs.popleft(), 0)
        if self._resets:
            return _bare_frame(FrameType.ERROR, self._resets.popleft(), _LEFT)
        if self._questions:
            return _bare_frame(FrameType.CONNECT, self._questions.popleft())
        while self._turns:
            outer = self._turns.popleft()
            frame = outer.next_frame()
            if frame is not None:
                self._turns.append(outer)
                return frame
            self._waiting.discard(outer)
        return None


def _bare_frame(kind: FrameType, client_id: int, payload: bytes = b"") -> bytes:
    return frame_of(Header(kind, Transport.TCP, client_id, 0), payload)
