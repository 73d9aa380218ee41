"""A client's WebSocket as a `Channel` of terminal frames, in either of the two languages of the interface.

`kohakuriver.tty.v2` has the frames of `wire.terminal_frames` themselves. The other has text frames
`{"type": "input" | "resize" | "output" | "error", data, rows, cols}`: its text is decoded piece by piece, so
a character split over two reads arrives whole, and it knows neither sessions nor exit statuses.
"""

import codecs
from collections import deque
from typing import Literal

import msgspec
from fastapi import WebSocket, WebSocketDisconnect

from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import Denied, InvalidInput, KohakuRiverError, Unauthenticated, Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES
from kohakuriver.wire.terminal_frames import (
    SUBPROTOCOL,
    ErrorNews,
    Resize,
    control_frame,
    data_frames,
    read_data,
)

_POLICY_VIOLATION = 1008
_MOST_REASON_BYTES = 120


class TerminalFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One text frame of the older language, either way."""

    type: Literal["input", "resize", "output", "error"]
    data: str = ""
    rows: int = 0
    cols: int = 0


class TtySocket:
    """See `wire.channel`; speaks `kohakuriver.tty.v2`. A frame that is too long is taken in pieces."""

    keeps_shell = True
    """Whether its client can come back to what it leaves."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._waiting: deque[bytes] = deque()
        self._is_open = True

    async def accept(self) -> None:
        await self._websocket.accept(SUBPROTOCOL)

    async def send(self, message: str | bytes) -> None:
        try:
            if isinstance(message, bytes):
                await self._websocket.send_bytes(message)
            else:
                await self._websocket.send_text(message)
        except (WebSocketDisconnect, RuntimeError) as error:
            self._is_open = False
            raise Unavailable("the client is gone from its terminal") from error

    async def receive(self) -> str | bytes | None:
        if self._waiting:
            return self._waiting.popleft()
        message = await self._next()
        if isinstance(message, bytes) and len(message) > MAX_MESSAGE_BYTES:
            self._waiting.extend(data_frames(*read_data(message)))
            return self._waiting.popleft()
        if isinstance(message, str) and len(message.encode()) > MAX_MESSAGE_BYTES:
            raise InvalidInput(f"a text frame may hold {MAX_MESSAGE_BYTES} bytes at most")
        return message

    async def close(self, error: KohakuRiverError | None = None) -> None:
        if not self._is_open:
            return
        try:
            if isinstance(error, (Unauthenticated, Denied)):
                reason = str(error).encode()[:_MOST_REASON_BYTES].decode("utf-8", "ignore")
                await self._close(_POLICY_VIOLATION, reason)
                return
            if error is not None:
                await self.send_error(error)
            await self._close(1000)
        except Unavailable:
            return  # nobody is there to be told

    async def send_error(self, error: KohakuRiverError) -> None:
        await self.send(control_frame(ErrorNews(str(error), error.code)))

    async def _next(self) -> str | bytes | None:
        if not self._is_open:
            return None
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            self._is_open = False
            return None
        text: str | None = message.get("text")
        return bytes(message["bytes"]) if text is None else text

    async def _close(self, code: int, reason: str = "") -> None:
        self._is_open = False
        try:
            await self._websocket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise Unavailable("the client is gone from its terminal") from error


class TextSocket(TtySocket):
    """Speaks the older language; what is no frame of it is answered with an error and passed over."""

    keeps_shell = False

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(websocket)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def accept(self) -> None:
        await self._websocket.accept()

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            await self._send_output(self._decoder.decode(read_data(message)[1]))

    async def receive(self) -> str | bytes | None:
        while not self._waiting:
            message = await self._next()
            if message is None:
                return None
            try:
                frame = msgspec.json.decode(message, type=TerminalFrame)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                await self.send_error(InvalidInput(f"that is not a terminal frame: {error}"))
                continue
            if frame.type == "resize":
                return control_frame(Resize(frame.rows, frame.cols))
            if frame.type == "input":
                self._waiting.extend(data_frames(Flow.INPUT, frame.data.encode("utf-8", "replace")))
        return self._waiting.popleft()

    async def close(self, error: KohakuRiverError | None = None) -> None:
        if self._is_open:
            try:
                await self._send_output(self._decoder.decode(b"", final=True))
            except Unavailable:
                return
        await super().close(error)

    async def send_error(self, error: KohakuRiverError) -> None:
        await self._send_frame(TerminalFrame("error", str(error)))

    async def _send_output(self, text: str) -> None:
        if text:
            await self._send_frame(TerminalFrame("output", text))

    async def _send_frame(self, frame: TerminalFrame) -> None:
        await super().send(msgspec.json.encode(frame).decode())


def socket_of(websocket: WebSocket) -> TtySocket:
    """The language is the client's choice."""
    offered = websocket.scope.get("subprotocols", ())
    return TtySocket(websocket) if SUBPROTOCOL in offered else TextSocket(websocket)
