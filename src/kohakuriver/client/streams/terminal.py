"""Terminals and commands over the host's WebSockets.

`kohakuriver.tty.v2` carries the bytes in binary frames; a host that does not take it is spoken to in JSON
text frames, decoded incrementally so that a character split over two reads arrives whole.
"""

import codecs
import contextlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from kohakuriver.client.connection.host_trust import HostAccess
from kohakuriver.client.connection.web_sockets import refusal, socket_options
from kohakuriver.client.errors import HostUnreachable, error_from_code
from kohakuriver.models.enums import Flow
from kohakuriver.models.errors import Denied, EngineFault, InvalidInput
from kohakuriver.wire.terminal_frames import (
    SUBPROTOCOL,
    EndOfInput,
    ErrorNews,
    ExitNews,
    Launch,
    Resize,
    ShellNews,
    Start,
    control_frame,
    data_frames,
    read_control,
    read_data,
)

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

__all__ = ["Launch", "Start", "Terminal", "environment_terminal", "launch", "task_command", "task_terminal"]

_POLICY_VIOLATION = 1008
_TELLING_BYTES = 65536
"""With so much sent since the last sign of life, silence may mean that the other end takes no more."""

_MISSES = 2


class Terminal:
    """An open terminal or command; `output` is read by one thread while another sends.

    `status`: the exit status, once the output has ended with one. `session` and `seen`: what to come back
    with. Sending raises HostUnreachable when the terminal is gone.
    """

    def __init__(self, connection: "ClientConnection") -> None:
        self._connection = connection
        self._binary = connection.subprotocol == SUBPROTOCOL
        self._input = codecs.getincrementaldecoder("utf-8")("replace")
        self._pong: threading.Event | None = None
        self._misses = 0
        self._sent_bytes = 0
        self._is_shown = True
        self.status: int | None = None
        self.session: str | None = None
        self.seen = 0

    def send(self, data: bytes) -> None:
        """Send what was typed; waits while the other end takes no more."""
        self._sent_bytes += len(data)
        if self._binary:
            for frame in data_frames(Flow.INPUT, data):
                self._send(frame)
        elif text := self._input.decode(data):
            self._send(json.dumps({"type": "input", "data": text}))

    def end_input(self) -> None:
        self._send(control_frame(EndOfInput()))

    def resize(self, rows: int, columns: int) -> None:
        self._send(control_frame(Resize(rows, columns)))

    def output(self) -> Iterator[tuple[Flow, bytes]]:
        """Yield what is written until the process has ended.

        Raises the error that the host ends it with, HostUnreachable if the connection broke.
        """
        from websockets.exceptions import ConnectionClosedError

        try:
            for frame in self._connection:
                flow, data = read_data(frame) if isinstance(frame, bytes) else self._read_text(frame)
                if data:
                    self._is_shown = False
                    yield flow, data
                    self._is_shown = True
                    self.seen += len(data)
        except ConnectionClosedError as error:
            closed = error.rcvd
            if closed is not None and closed.code == _POLICY_VIOLATION:
                raise Denied(closed.reason or "the host does not let you go on") from error
            if closed is not None and closed.reason:
                raise EngineFault(closed.reason) from error
            raise HostUnreachable("the connection to the terminal was lost") from error

    def feel_pulse(self) -> None:
        """Call now and then; hangs up once the other end gives no sign of life and nothing holds it back."""
        answered = self._pong is None or self._pong.is_set()
        if answered or not self._is_shown or self._sent_bytes > _TELLING_BYTES:
            self._misses = 0
        else:
            self._misses += 1
        if answered:
            self._sent_bytes = 0
            self._pong = self._ping()
        elif self._misses >= _MISSES:
            self.hang_up()

    def hang_up(self) -> None:
        """End it at once, whatever another thread is doing with it; free to call twice."""
        with contextlib.suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)

    def _ping(self) -> threading.Event:
        from websockets.exceptions import ConnectionClosed

        try:
            return self._connection.ping()
        except ConnectionClosed as error:
            raise HostUnreachable("the terminal was closed by the host") from error

    def _send(self, frame: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(frame)
        except ConnectionClosed as error:
            raise HostUnreachable("the terminal was closed by the host") from error

    def _read_text(self, frame: str) -> tuple[Flow, bytes]:
        if not self._binary:
            return Flow.OUTPUT, _read_old_frame(frame)
        match _control(frame):
            case ShellNews(session=session, begins_at=begins_at):
                self.session, self.seen = session, begins_at
            case ExitNews(status=status):
                self.status = status
            case ErrorNews(data=sentence, code=code):
                raise error_from_code(code, sentence)
        return Flow.OUTPUT, b""


@contextmanager
def environment_terminal(access: HostAccess, environment: str) -> Iterator[Terminal]:
    """Open a shell in the container of an environment on the host."""
    path = f"/ws/docker/host/containers/{quote(environment, safe='')}/terminal"
    with _opened(access, path) as terminal:
        yield terminal


@contextmanager
def task_terminal(access: HostAccess, task_id: str, query: Mapping[str, Any]) -> Iterator[Terminal]:
    """Open a shell in a workload, or come back to one: `rows`, `cols`, `session`, `seen`."""
    with _opened(access, f"/ws/task/{task_id}/terminal?{urlencode(query)}") as terminal:
        yield terminal


@contextmanager
def task_command(access: HostAccess, task_id: str, start: Start) -> Iterator[Terminal]:
    """Run a command in a workload; leaving ends it."""
    with _opened(access, f"/ws/task/{task_id}/exec") as terminal:
        terminal._send(control_frame(start))
        yield terminal


def launch(access: HostAccess, task_id: str, wanted: Launch) -> None:
    """Start a command in a workload that goes on without us; return once it runs."""
    with _opened(access, f"/ws/task/{task_id}/exec") as terminal:
        terminal._send(control_frame(wanted))
        for _ in terminal.output():
            continue
        if terminal.status is None:
            raise EngineFault("whether the command runs is not known; look at what it did")


@contextmanager
def _opened(access: HostAccess, path: str) -> Iterator[Terminal]:
    with open_socket(access, path) as connection:
        yield Terminal(connection)


def open_socket(access: HostAccess, path: str) -> "ClientConnection":
    """A WebSocket of the host that speaks frames of terminals; raises what the host refuses it with."""
    from websockets.exceptions import InvalidHandshake
    from websockets.sync.client import connect

    uri, options = socket_options(access, path, SUBPROTOCOL)
    try:
        connection: ClientConnection = connect(uri, **options)
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise refusal(access, error) from error
    return connection


def _control(frame: str) -> object:
    try:
        return read_control(frame)
    except InvalidInput as error:
        raise EngineFault("the host sent a terminal frame that this version cannot read") from error


def _read_old_frame(frame: str) -> bytes:
    try:
        message = json.loads(frame)
        kind, data = message["type"], str(message.get("data", ""))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise EngineFault("the host sent a terminal frame that this version cannot read") from error
    if kind == "error":
        raise EngineFault(data)
    return data.encode() if kind == "output" else b""
