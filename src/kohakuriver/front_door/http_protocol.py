"""HTTP/1.1 with limits: uvicorn's protocol, which itself has none on headers, time, or who takes what.

What counts is progress. Between two pieces of it (headers complete, a piece of a body, a request complete)
only so many bytes may come, whatever they are: a header or trailer without end, chunk headers, blank lines.
The parser keeps a value that comes in pieces by copying it each time, so without that bound one header costs
its square.
"""

import asyncio
import json
from functools import partial
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from kohakuriver.front_door.connections import Connections
from kohakuriver.front_door.proof import attach
from kohakuriver.front_door.websocket_protocol import GuardedWebSocketProtocol, fits_websocket

_REFUSALS = {
    400: "this is not a request that HTTP/1.1 knows",
    408: "the request did not arrive in time; send it again",
    415: "bodies are taken as they are; send this one without Content-Encoding",
    429: "too much is being sent from this address without a valid credential; try again later",
    431: "the request line and headers are too long or too many; send fewer",
    503: "there are too many connections without a valid credential from this address, or of this caller; "
    "try again later",
}


_LINGER_SECONDS = 2.0
"""A refusal is lost if the connection is reset under it, so what still comes is taken in for a moment."""
_PLAIN_CODINGS = {b"content-encoding": (b"", b"identity"), b"transfer-encoding": (b"chunked",)}


def _refusal(status: int) -> bytes:
    """The whole answer of the front door itself, which no application sees; the connection ends with it."""
    body = json.dumps({"detail": _REFUSALS[status]}).encode()
    head = (
        b"content-type: application/json\r\n"
        b"content-length: " + str(len(body)).encode() + b"\r\n"
        b"connection: close\r\n\r\n"
    )
    return STATUS_LINE[status] + head + body


class GuardedHttpProtocol(HttpToolsProtocol):
    """One connection of a client; see `front_door.connections.Connection`."""

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
        self._limits = connections.limits
        self._proven = self._request_proven = False
        self._deaf = self._refused = False
        self._in_head, self._has_cycle, self._body_whole = True, False, True
        self._since = self._body_since = self._body_at = self._now = 0.0
        self._body_bytes = self._idle_bytes = self._piece_bytes = 0
        self._progressed = False
        if self.ws_protocol_class is not None:
            self.ws_protocol_class = partial(GuardedWebSocketProtocol, connections)  # type: ignore[assignment]

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._connections.enter(self, self.client[0] if self.client else "")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._now = self.loop.time()
        room = self._limits.head_bytes - self._idle_bytes + 1
        if len(data) > room and self._in_head:
            if self._feed(data[:room]):
                self._feed(data[room:])
        else:
            self._feed(data)

    def _feed(self, piece: bytes) -> bool:
        """Parse a piece; False: nothing more is to come."""
        self._progressed, self._piece_bytes = False, len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return False
        except httptools.HttpParserError:
            if not self._deaf:
                self._refuse(400, "not HTTP")
            return False
        if self._deaf:
            return False
        if self._progressed:
            self._idle_bytes = 0
            return True
        return self._take_idle(len(piece))

    def _take_idle(self, size: int) -> bool:
        """Count bytes that brought nothing on; they are kept by the parser. False: too many."""
        self._idle_bytes += size
        if self._idle_bytes > self._limits.head_bytes:
            self._refuse(431, "headers without end")
            return False
        if not self._proven and not self._connections.charge(self, size):
            self._refuse(429, "too many bytes without a credential")
            return False
        return True

    def _upgrade(self) -> None:
        if self._deaf:
            return
        if not self._should_upgrade():
            # Answered as the request that it also is; what follows would be in a language nobody asked for.
            self._deaf = True
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        if not fits_websocket(self.url, self.headers):
            self._refuse(431, "headers too long for a WebSocket")
            return
        if self._is_answering():
            self._refuse(400, "a WebSocket behind another request")
            return
        self._connections.leave(self)
        self.handle_websocket_upgrade()

    # The parser's calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._has_cycle, self._since = True, False, self._now
        self._body_bytes = 0

    def on_headers_complete(self) -> None:
        self._progressed, self._in_head, self._body_whole = True, False, False
        if self._deaf or self._refuse_head():
            return
        if self.cycle is not None and len(self.pipeline) >= self._limits.pipelined:
            self._refuse(429, "too many requests at once")
            return
        attach(self.scope, self)  # type: ignore[arg-type]
        self._body_since = self._body_at = self._now
        if self.held_bytes:
            self._connections.discharge(self)
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self._has_cycle = True
            self.headers = []  # trailers are nobody's headers

    def _refuse_head(self) -> bool:
        if len(self.headers) > self._limits.headers or self._head_is_too_long():
            self._refuse(431, "too many headers")
            return True
        for name, value in self.headers:
            plain = _PLAIN_CODINGS.get(name)
            if plain is not None and value.strip().lower() not in plain:
                self._refuse(415, "a coded body")
                return True
        return False

    def _head_is_too_long(self) -> bool:
        """Of one that came in a single piece with the end of another request, nobody counted the bytes."""
        if self._piece_bytes <= self._limits.head_bytes:
            return False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return size > self._limits.head_bytes

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        if self._deaf:
            return
        self._body_at, self._body_bytes = self._now, self._body_bytes + len(body)
        super().on_body(body)
        if self._proven or not self._has_cycle or self.cycle.response_complete:
            return
        if not self._connections.charge(self, len(body)):
            self._refuse(429, "too many bytes without a credential")

    def on_message_complete(self) -> None:
        self._progressed = True
        if not self._deaf:
            self._body_whole, self._since = True, self._now
            super().on_message_complete()

    # The application's calls

    def prove(self, caller: str) -> None:
        self._request_proven = True
        if not self._proven or self.held_bytes or caller != self.caller:
            self._proven = True
            self._connections.count_as_known(self, caller)

    def on_response_complete(self) -> None:
        if not self._request_proven and not self.transport.is_closing():
            self._proven = False
            self._connections.discharge(self)
            self._connections.count_as_stranger(self)
        self._request_proven = False
        self._since = self._body_since = self.loop.time()
        if self.cycle.response_complete:
            self._body_bytes = 0
            if self.cycle.body:
                self.cycle.body = bytearray()
        super().on_response_complete()

    # Time

    def look(self, now: float) -> None:
        """See `front_door.connections.Connection`."""
        if self._refused:
            return
        limits, waited = self._limits, now - self._since
        if self.transport.is_closing() or (self._is_answering() and self._body_whole):
            held_up = self.flow.write_paused or self.transport.is_closing()
            if held_up and not self._proven and waited > limits.unread_answer_seconds:
                self.transport.abort()
        elif not self._body_whole:
            self._look_at_body(now)
        elif self._in_head:
            if waited > limits.head_seconds and self._idle_bytes:
                self._refuse(408, "headers were not complete in time")
            elif waited > limits.head_seconds:
                self.transport.close()
        elif waited > limits.idle_seconds:
            self.transport.close()

    def _look_at_body(self, now: float) -> None:
        limits = self._limits
        if self.flow.read_paused:  # it is the application that takes its time
            self._body_at = self._body_since = now
        elif self._proven:
            if now - self._body_at > limits.silence_seconds:
                self._refuse(408, "a body fell silent")
        else:
            # What is sent on after the answer is of use to nobody.
            useful = self._body_bytes if self._is_answering() else 0
            if now - self._body_since > limits.body_grace_seconds + useful / limits.body_bytes_per_second:
                self._refuse(408, "a body did not get on")

    def make_room(self) -> None:
        """See `front_door.connections.Connection`."""
        self._refuse(503, "too many connections", linger=False)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: int, reason: str, *, linger: bool = True) -> None:
        """Answer for the application, if nothing was answered yet, and end the connection."""
        self._deaf = self._refused = True
        self._connections.tell(self, "request_refused", reason)
        self._unset_keepalive_if_required()
        # One that others wait for must be answered first, so there is no place for this answer then.
        in_turn = not self.pipeline and (self._has_cycle or not self._is_answering())
        if self._has_cycle:
            in_turn = in_turn and not self.cycle.response_started
        if self._is_answering():
            self.cycle.disconnected = True
            self.cycle.body = bytearray()
            self.cycle.message_event.set()
        self._connections.discharge(self)
        if self.transport.is_closing():
            return
        if in_turn:
            self.transport.write(_refusal(status))
        if in_turn and linger and self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)
