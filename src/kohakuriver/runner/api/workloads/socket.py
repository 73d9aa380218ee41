"""A WebSocket of a workload, as the server hands it on."""

from starlette.types import Receive, Send

from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.wire.messages import encode


class WorkloadSocket:
    """`accept` or `refuse` first."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._open = False

    async def accept(self, subprotocol: str) -> None:
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})
        self._open = True

    async def refuse(self, error: KohakuRiverError) -> None:
        """Answer before it is one."""
        headers = [(b"content-type", b"application/json")]
        start = {"type": "websocket.http.response.start", "status": error.http_status, "headers": headers}
        await self._send(start)
        await self._send({"type": "websocket.http.response.body", "body": encode({"detail": str(error)})})

    async def send(self, message: str | bytes) -> None:
        if not self._open:
            raise Unavailable("the workload is gone from this connection")
        kind = "text" if isinstance(message, str) else "bytes"
        try:
            await self._send({"type": "websocket.send", kind: message})
        except (OSError, RuntimeError) as error:
            self._open = False
            raise Unavailable("the workload is gone from this connection") from error

    async def receive(self) -> str | bytes | None:
        if not self._open:
            return None
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self._open = False
            return None
        text: str | None = message.get("text")
        return bytes(message["bytes"]) if text is None else text

    async def close(self, code: int) -> None:
        if self._open:
            self._open = False
            await self._send({"type": "websocket.close", "code": code})
