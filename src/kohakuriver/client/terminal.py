"""A terminal in an environment's container, over the host's WebSocket.

`kohakuriver.tty.v2` carries the bytes in binary frames; a host that does not take it is spoken to in JSON
text frames, decoded incrementally so that a character split over two reads arrives whole.
"""

import codecs
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from kohakuriver.client.errors import HostUnreachable, error_from_answer
from kohakuriver.models.errors import EngineFault

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

SUBPROTOCOL = "kohakuriver.tty.v2"
_OPEN_SECONDS = 10
_FRAME_LIMIT_BYTES = 1 << 20


class Terminal:
    """An open terminal; `output` is read by one thread while others send."""

    def __init__(self, connection: "ClientConnection") -> None:
        self._connection = connection
        self._binary = connection.subprotocol == SUBPROTOCOL
        self._input = codecs.getincrementaldecoder("utf-8")("replace")

    def send(self, data: bytes) -> None:
        """Send what was typed. Raises HostUnreachable when the terminal is gone."""
        from websockets.exceptions import ConnectionClosed

        try:
            if self._binary:
                self._connection.send(data)
            elif text := self._input.decode(data):
                self._connection.send(json.dumps({"type": "input", "data": text}))
        except ConnectionClosed as error:
            raise HostUnreachable("the terminal was closed by the host") from error

    def resize(self, rows: int, columns: int) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(json.dumps({"type": "resize", "rows": rows, "cols": columns}))
        except ConnectionClosed as error:
            raise HostUnreachable("the terminal was closed by the host") from error

    def output(self) -> Iterator[bytes]:
        """Yield what the terminal shows until its shell has ended.

        Raises EngineFault with the host's sentence, HostUnreachable if the connection broke.
        """
        from websockets.exceptions import ConnectionClosedError

        try:
            for frame in self._connection:
                yield frame if isinstance(frame, bytes) else _read_text_frame(frame)
        except ConnectionClosedError as error:
            closed = error.rcvd
            if closed is not None and closed.reason:
                raise EngineFault(closed.reason) from error
            raise HostUnreachable("the connection to the terminal was lost") from error

    def close(self) -> None:
        self._connection.close()


@contextmanager
def environment_terminal(url: str, token: str | None, environment: str) -> Iterator[Terminal]:
    """Open a shell in the container of an environment on the host at `url`."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    address = f"ws{url.removeprefix('http')}/ws/docker/host/containers/{quote(environment, safe='')}/terminal"
    try:
        connection = connect(
            address,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers={"Authorization": f"Bearer {token}"} if token else None,
            compression=None,
            proxy=None,
            open_timeout=_OPEN_SECONDS,
            max_size=_FRAME_LIMIT_BYTES,
        )
    except InvalidStatus as error:
        raise error_from_answer(error.response.status_code, bytes(error.response.body or b"")) from error
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise HostUnreachable(f"no terminal at {url} ({error}); is the host running?") from error
    with connection:
        yield Terminal(connection)


def _read_text_frame(frame: str) -> bytes:
    try:
        message = json.loads(frame)
        kind, data = message["type"], str(message.get("data", ""))
    except (ValueError, TypeError, KeyError) as error:
        raise EngineFault("the host sent a terminal frame that this version cannot read") from error
    if kind == "error":
        raise EngineFault(data)
    return data.encode() if kind == "output" else b""
