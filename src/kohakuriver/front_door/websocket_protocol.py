"""WebSockets with limits: each belongs to a stranger until the application says otherwise."""

import asyncio
import struct
from asyncio.transports import BaseTransport
from collections.abc import Iterable
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame
from websockets.http11 import MAX_LINE_LENGTH, Request
from websockets.protocol import State

from kohakuriver.front_door.connections import Connections
from kohakuriver.front_door.proof import attach

_MOST_PIECES = 1024
LARGE_BYTES = 4096
"""A message of this size goes out uncopied; the library copies it several times."""


def fits_websocket(url: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the WebSocket library takes such a request: it is read anew there, with limits of its own."""
    lines = (len(name) + len(value) + len(b": \r\n") for name, value in headers)
    return (
        len(url) + len(b"GET  HTTP/1.1\r\n") <= MAX_LINE_LENGTH and max(lines, default=0) <= MAX_LINE_LENGTH
    )


def _frame_header(length: int) -> bytes:
    """Of a binary message in one frame, as servers send it (RFC 6455)."""
    if length < 1 << 16:
        return struct.pack("!BBH", 0x82, 126, length)
    return struct.pack("!BBQ", 0x82, 127, length)


class GuardedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket; see `front_door.connections.Connection`."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.group = self.caller = ""
        self.held_bytes = 0
        self._connections = connections
        self._proven = False
        self._since = self.loop.time()
        self._unproven_bytes = 0

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.enter(self, self.client[0] if self.client else "")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and not self._proven:
            self._unproven_bytes += len(data)
            if self._unproven_bytes > self._connections.limits.head_bytes:
                self._connections.tell(self, "request_refused", "a WebSocket that proves nothing")
                self.transport.abort()
                return
        super().data_received(data)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        scope = getattr(self, "scope", None)  # there is none of a handshake that was refused
        if scope is not None:
            attach(scope, self)

    def handle_ping(self) -> None:
        """Answer who reads; for one that does not, PONGs would lie here without end."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """Hold a message in few pieces: only its bytes are limited, and empty pieces have none."""
        if len(self.frames) >= _MOST_PIECES:
            self.frames = [b"".join(self.frames)]
        super().handle_cont(event)

    async def send(self, message: Any) -> None:
        data = message.get("bytes")
        if data is not None and len(data) >= LARGE_BYTES:
            await self.writable.wait()
            if self._is_open():
                self.transport.writelines((_frame_header(len(data)), data))
                return
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            # The server takes a refusal for a handshake that was forgotten, and logs an error for each.
            self.handshake_complete = True

    def _is_open(self) -> bool:
        is_being_ended = self.disconnected or self.close_sent
        return self.handshake_complete and not is_being_ended and self.conn.state is State.OPEN

    def prove(self, caller: str) -> None:
        self._proven = True
        self._connections.count_as_known(self, caller)

    def look(self, now: float) -> None:
        """See `front_door.connections.Connection`."""
        if not self._proven and now - self._since > self._connections.limits.head_seconds:
            self.transport.abort()

    def make_room(self) -> None:
        """See `front_door.connections.Connection`."""
        self.transport.abort()
