"""`docker container shell`: a real terminal joined to a WebSocket, in both of its languages."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from support.clients.command_line import CommandLine
from support.clients.pty_session import pty_session

PATH = "/ws/docker/host/containers/lab/terminal"


class StubTerminal:
    """Echoes what is typed in capitals, keeps the sizes it was told, ends at `exit`."""

    def __init__(self, *, binary: bool, refuse: int | None = None) -> None:
        self.binary = binary
        self.refuse = refuse
        self.sizes: list[tuple[int, int]] = []
        self.headers: Headers | None = None
        self.resized = threading.Event()

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        self.headers = request.headers
        if self.refuse is None and request.path == PATH:
            return None
        response = connection.respond(self.refuse or 404, json.dumps({"detail": "no such container"}))
        return response

    def handle(self, connection: ServerConnection) -> None:
        self._send(connection, b"ready\xe2\x9c\x93\r\n")
        typed = b""
        for frame in connection:
            message: dict[str, Any] = {} if isinstance(frame, bytes) else json.loads(frame)
            if message.get("type") == "resize":
                self.sizes.append((message["rows"], message["cols"]))
                self.resized.set()
                continue
            assert isinstance(frame, bytes) == self.binary
            if isinstance(frame, bytes):
                assert frame[0] == 0
            data = frame[1:] if isinstance(frame, bytes) else message["data"].encode()
            typed += data
            self._send(connection, data.upper())
            if b"exit" in typed:
                return

    def _send(self, connection: ServerConnection, data: bytes) -> None:
        if self.binary:
            connection.send(b"\x01" + data)
        else:
            connection.send(json.dumps({"type": "output", "data": data.decode()}))


@contextmanager
def serving(stub: StubTerminal) -> Iterator[str]:
    protocols: Any = ["kohakuriver.tty.v2"] if stub.binary else None
    with serve(
        stub.handle,
        "127.0.0.1",
        0,
        subprotocols=protocols,
        select_subprotocol=None if stub.binary else lambda connection, offered: None,
        process_request=stub.check,
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("binary", [True, False])
def test_what_is_typed_and_shown_passes_through(tmp_path: Path, binary: bool) -> None:
    stub = StubTerminal(binary=binary)
    with serving(stub) as url:
        command = CommandLine(tmp_path, url)
        argv = command.argv("docker", "container", "shell", "lab")
        with pty_session(argv, command.environment()) as terminal:
            terminal.wait_for("ready✓")
            assert stub.resized.wait(20)
            terminal.send("abc\x03")
            terminal.wait_for("ABC\x03")
            terminal.send("exit\r")
            assert terminal.wait() == 0
    assert stub.sizes
    assert stub.headers is not None
    assert "Sec-WebSocket-Extensions" not in stub.headers


def test_a_refused_terminal_ends_with_the_status_of_the_refusal(tmp_path: Path) -> None:
    with serving(StubTerminal(binary=True, refuse=404)) as url:
        command = CommandLine(tmp_path, url)
        argv = command.argv("docker", "container", "shell", "lab")
        with pty_session(argv, command.environment()) as terminal:
            assert terminal.wait() == 3
    assert "no such container" in terminal.text
