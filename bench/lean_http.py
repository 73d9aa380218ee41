"""One keep-alive HTTP connection that costs next to nothing: prepared bytes out, status and body in.

It reads answers that announce their length, which all of the host's JSON answers do.
"""

import asyncio


class LeanClient(asyncio.Protocol):
    """One request under way at a time. `keep_body` False: the body is counted and thrown away."""

    def __init__(self, keep_body: bool = True) -> None:
        self.transport: asyncio.WriteTransport | None = None
        self.headers = b""
        self.length = 0
        self._answered: asyncio.Future[str] | None = None
        self._keep_body = keep_body
        self._pieces: list[bytes] = []
        self._head = b""
        self._left = -1
        self._status = ""

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    @property
    def fields(self) -> dict[str, str]:
        """The headers of the last answer, by names in lower case."""
        pairs = (line.partition(":") for line in self.headers.decode("latin-1").split("\r\n")[1:])
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._begin(self._head[:end])
            data, self._head = self._head[end + 4 :], b""
        self._left -= len(data)
        if self._keep_body and data:
            self._pieces.append(data)
        if self._left == 0 and self._answered is not None and not self._answered.done():
            self._left = -1
            self._answered.set_result(self._status)

    def _begin(self, head: bytes) -> None:
        self._status = head[9:12].decode()
        self.headers = head
        at = head.lower().index(b"content-length:") + 15
        self.length = self._left = int(head[at:].split(b"\r\n", 1)[0])

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionError("the host closed the connection"))

    async def ask(self, request: bytes) -> str:
        """Send and wait; returns the status. Raises OSError when the connection does not hold."""
        if not self.is_open:
            raise ConnectionError("the connection is closed")
        assert self.transport is not None
        self._pieces.clear()
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answered

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


async def connect(port: int, keep_body: bool = True, local_address: str = "127.0.0.1") -> LeanClient:
    """Open a connection to this machine, from one of its own addresses."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: LeanClient(keep_body), "127.0.0.1", port, local_addr=(local_address, 0)
    )
    return client


def request_bytes(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """Put a request together; its content is JSON."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])).encode() + body
