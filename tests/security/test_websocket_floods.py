"""What a client of a WebSocket can have either daemon hold by frames that are no messages."""

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from kohakuriver.front_door import ConnectionLimits, Connections
from kohakuriver.front_door.proof import prove
from kohakuriver.front_door.websocket_protocol import GuardedWebSocketProtocol

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CONTINUED, BINARY, PING = 0, 2, 9


def frame(opcode: int, payload: bytes = b"", *, is_last: bool = True) -> bytes:
    """As a client sends it; a mask of zeros changes nothing."""
    return struct.pack(">BB4x", opcode | is_last << 7, 0x80 | len(payload)) + payload


class Line(asyncio.Transport):
    """What the client at its other end would have to read."""

    def __init__(self) -> None:
        super().__init__({"socket": None})
        self.written = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def pause_reading(self) -> None:
        """Nothing is sent meanwhile."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """It has no socket."""


class Stage:
    """A WebSocket whose client has proven itself."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.is_open = asyncio.Event()
        self.line = Line()
        config = uvicorn.Config(self._app, interface="asgi3", ws_ping_interval=None, log_config=None)
        config.load()
        state = ServerState()
        self.protocol = GuardedWebSocketProtocol(Connections(ConnectionLimits()), config, state, {})
        self.protocol.connection_made(self.line)
        self.protocol.data_received(HANDSHAKE)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        prove(scope, "someone")
        await send({"type": "websocket.accept"})
        self.is_open.set()
        while True:
            message = await receive()
            await self.heard.put(message)
            if message["type"] == "websocket.disconnect":
                return


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.is_open.wait()
    stage.line.written.clear()
    yield stage
    stage.protocol.connection_lost(None)


async def test_pings_of_one_that_reads_no_answers_are_not_answered(stage: Stage) -> None:
    stage.protocol.data_received(frame(PING, b"1"))
    assert stage.line.written == b"\x8a\x011"
    stage.protocol.pause_writing()  # as the loop does when what was written before is not taken
    stage.protocol.data_received(frame(PING, bytes(125)) * 1000)
    assert len(stage.line.written) == 3
    stage.protocol.resume_writing()
    stage.protocol.data_received(frame(PING, b"2"))
    assert stage.line.written == b"\x8a\x011\x8a\x012"


async def test_a_message_of_pieces_without_end_takes_no_more_than_its_bytes(stage: Stage) -> None:
    stage.protocol.data_received(frame(BINARY, b"first", is_last=False))
    for _ in range(20):
        stage.protocol.data_received(frame(CONTINUED, is_last=False) * 1000)
    assert len(stage.protocol.frames) < 2000
    stage.protocol.data_received(frame(CONTINUED, b" and last"))
    assert (await stage.heard.get())["bytes"] == b"first and last"
