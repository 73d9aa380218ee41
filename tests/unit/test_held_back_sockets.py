"""Who is held back cannot answer pings, and loses neither its WebSocket nor its terminal for that."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from kohakuriver.client.streams.terminal import Terminal
from kohakuriver.serving import ApiServer, bind_listener
from kohakuriver.wire.terminal_frames import SUBPROTOCOL

pytestmark = pytest.mark.anyio

PINGS = 10


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[int]:
    listener = bind_listener("127.0.0.1", 0, "HOST_PORT")
    server = ApiServer(_echo, 1)
    server.config.ws_ping_interval = 0.01
    if server.config.ws_ping_timeout is not None:  # then as much sooner as pings are
        server.config.ws_ping_timeout = 0.01
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def test_a_client_that_answers_no_pings_keeps_its_connection() -> None:
    async with served() as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/"))
        protocol.send_request(protocol.connect())
        writer.writelines(protocol.data_to_send())
        pings, echo = 0, b""
        while not echo:
            data = await reader.read(65536)
            assert data, f"the server closed the connection after {pings} pings"
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    echo = bytes(event.data)
                pings += isinstance(event, Frame) and event.opcode is Opcode.PING
            protocol.data_to_send()  # the answers to pings, which are kept back here
            if pings == PINGS:
                protocol.send_text(b"still here")
                writer.writelines(protocol.data_to_send())
        assert echo == b"still here"
        writer.close()


class SilentEnd:
    """A connection whose other end may or may not answer pings."""

    subprotocol = SUBPROTOCOL

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.is_down = False
        self.socket = self

    def ping(self) -> threading.Event:
        pong = threading.Event()
        if self.answers:
            pong.set()
        return pong

    def send(self, frame: str | bytes) -> None:
        """Taken and not answered."""

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_RDWR
        self.is_down = True

    def __iter__(self) -> Any:
        return iter([b"\x01shown"])


def feel(terminal: Terminal, times: int = 8) -> None:
    for _ in range(times):
        terminal.feel_pulse()


def test_a_dead_connection_is_given_up_and_a_live_one_is_not() -> None:
    dead, live = SilentEnd(answers=False), SilentEnd(answers=True)
    feel(Terminal(dead))  # type: ignore[arg-type]
    feel(Terminal(live))  # type: ignore[arg-type]
    assert (dead.is_down, live.is_down) == (True, False)


def test_a_silence_that_has_a_reason_is_borne() -> None:
    unread, unsent = SilentEnd(answers=False), SilentEnd(answers=False)
    terminal = Terminal(unread)  # type: ignore[arg-type]
    shown = terminal.output()
    assert next(shown)[1] == b"shown"  # and what was shown is not yet taken
    feel(terminal)
    assert not unread.is_down
    terminal = Terminal(unsent)  # type: ignore[arg-type]
    terminal.send(b"x" * 100_000)
    terminal.feel_pulse()
    terminal.send(b"x" * 100_000)
    feel(terminal)
    assert not unsent.is_down
