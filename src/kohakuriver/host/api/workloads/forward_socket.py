"""A client's WebSocket that carries a tunnel, and how its frames go on: unread, or translated where it has no
credit.
"""

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import WebSocket, WebSocketDisconnect

from kohakuriver.broadcast import Broadcast
from kohakuriver.models.errors import Denied, InvalidInput, KohakuRiverError, Unauthenticated, Unavailable
from kohakuriver.streams.pumping import carry, first_to_end
from kohakuriver.streams.tunnels.without_credit import WithoutCredit
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.tunnel.frames import EARLIER_SUBPROTOCOL, MAX_FRAME_BYTES, SUBPROTOCOL, Transport

_POLICY_VIOLATION = 1008
_COME_AGAIN = 1012
_MOST_REASON_BYTES = 120
_TICK_SECONDS = 5.0


class ForwardSocket:
    """A `Channel` of frames. `close` with an error says `Error: …` as text before it."""

    def __init__(self, websocket: WebSocket, subprotocol: str | None) -> None:
        self._websocket = websocket
        self._subprotocol = subprotocol
        self._is_open = False
        self.sent_bytes = self.received_bytes = 0

    @property
    def has_credit(self) -> bool:
        return self._subprotocol == SUBPROTOCOL

    @property
    def address(self) -> str:
        return self._websocket.client.host if self._websocket.client else ""

    async def accept(self) -> None:
        await self._websocket.accept(self._subprotocol)
        self._is_open = True

    async def send(self, message: str | bytes) -> None:
        try:
            if isinstance(message, bytes):
                self.sent_bytes += len(message)
                await self._websocket.send_bytes(message)
            else:
                await self._websocket.send_text(message)
        except (WebSocketDisconnect, RuntimeError) as error:
            self._is_open = False
            raise Unavailable("the client is gone from its tunnel") from error

    async def receive(self) -> bytes | None:
        """Return the next frame, None once the client is gone; raises InvalidInput for what is none."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            self._is_open = False
            return None
        frame = message.get("bytes")
        if not isinstance(frame, bytes) or len(frame) > MAX_FRAME_BYTES:
            raise InvalidInput("what came is no frame of a tunnel")
        self.received_bytes += len(frame)
        return frame

    async def close(self, error: KohakuRiverError | None = None) -> None:
        if not self._is_open:
            return
        ends_for_good = isinstance(error, (Unauthenticated, Denied, InvalidInput))
        code = _POLICY_VIOLATION if ends_for_good else 1000 if error is None else _COME_AGAIN
        reason = str(error or "").encode()[:_MOST_REASON_BYTES].decode("utf-8", "ignore")
        try:
            if error is not None:
                await self.send(f"Error: {error}")
            self._is_open = False
            await self._websocket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError, Unavailable):
            return  # nobody is there to be told


def forward_socket_of(websocket: WebSocket) -> ForwardSocket:
    """With credit, if the client offers it."""
    offered = websocket.scope.get("subprotocols", ())
    known = (SUBPROTOCOL, EARLIER_SUBPROTOCOL)
    return ForwardSocket(websocket, next((name for name in known if name in offered), None))


async def pass_on(client: ForwardSocket, runner: Channel) -> None:
    """Carry frames both ways, one at a time, until one of the ends is gone."""
    await first_to_end(carry(client, runner), carry(runner, client))


async def translate(client: ForwardSocket, runner: Channel, transport: Transport, port: int) -> None:
    """Be the other end of a client without credit, for connections to one port."""
    crossings, changed = WithoutCredit(transport, port), Broadcast()
    await first_to_end(
        _take_client(client, crossings, changed),
        _take_runner(runner, crossings, changed),
        _write(crossings.to_client, client.send, changed),
        _write(crossings.to_runner, runner.send, changed),
        _tick(crossings, changed),
    )


async def _take_client(client: ForwardSocket, crossings: WithoutCredit, changed: Broadcast) -> None:
    while (frame := await client.receive()) is not None:
        crossings.from_client(frame)
        changed.wake_all()
        while not crossings.may_read_client:
            await changed.wait()


async def _take_runner(runner: Channel, crossings: WithoutCredit, changed: Broadcast) -> None:
    while (frame := await runner.receive()) is not None:
        if isinstance(frame, str):
            raise Unavailable("the node did not answer as it must; is its runner of another version?")
        crossings.from_runner(frame)
        changed.wake_all()


async def _write(
    next_frame: Callable[[], bytes | None], send: Callable[[bytes], Awaitable[None]], changed: Broadcast
) -> None:
    while True:
        waiting = changed.next
        while (frame := next_frame()) is not None:
            await send(frame)
            changed.wake_all()
        await waiting.wait()


async def _tick(crossings: WithoutCredit, changed: Broadcast) -> None:
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        crossings.tick(asyncio.get_running_loop().time())
        changed.wake_all()
