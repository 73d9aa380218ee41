"""Streams of the runner's API: its table of WebSocket routes, and one stream from its request to its end.

A stream belongs to the host as every call does: its request is signed, and nothing is done before the host
has answered the runner's challenge (`wire.trust.sealed`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

import structlog
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from kohakuriver.models.errors import EngineFault, KohakuRiverError, NotFound, Unavailable
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.trust.identity import LinkKeys
from kohakuriver.wire.trust.sealed_channel import SealedChannel, accept_as_runner

_OPENING_SECONDS = 10.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamCall:
    """What the host asks for: fields of the path, and of the query (each name once)."""

    path: Mapping[str, str]
    query: Mapping[str, str]


StreamHandler = Callable[[StreamCall, Channel], Awaitable[None]]
"""Serves one stream until it is over. A KohakuRiverError that it raises is told to the host as its end."""


class Streams:
    """The streams that are offered, by path (`/ws/task/{task_id}/terminal`)."""

    def __init__(self, handlers: Mapping[str, StreamHandler]) -> None:
        self._routes = [(compile_path(path)[0], handler) for path, handler in handlers.items()]
        self.paths = tuple(handlers)

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, keys: LinkKeys, credential: str
    ) -> None:
        """Serve a WebSocket whose request was verified."""
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        transport = _Socket(receive, send)
        try:
            async with asyncio.timeout(_OPENING_SECONDS):
                channel = await accept_as_runner(transport, keys, credential)
        except (KohakuRiverError, TimeoutError) as error:
            _log.warning("stream_not_opened", path=scope["path"], reason=str(error) or "no answer in time")
            await transport.close()
            return
        await self._serve(scope, channel)

    async def _serve(self, scope: Scope, channel: SealedChannel) -> None:
        error: KohakuRiverError | None = None
        try:
            handler, path = self._find(scope["path"])
            query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
            await handler(StreamCall(path, query), channel)
        except KohakuRiverError as refused:
            error = refused
        except Exception as failed:  # noqa: BLE001 - boundary of one stream
            _log.exception("stream_failed", path=scope["path"])
            error = EngineFault(f"the runner failed ({type(failed).__name__}); see its log")
        await channel.close(error)

    def _find(self, path: str) -> tuple[StreamHandler, Mapping[str, str]]:
        for pattern, handler in self._routes:
            if (match := pattern.match(path)) is not None:
                return handler, match.groupdict()
        raise NotFound(f"this runner offers no stream at {path[:200]}")


class _Socket:
    """A WebSocket as the server hands it on."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._open = True

    async def send(self, data: bytes) -> None:
        if not self._open:
            raise Unavailable("the host is gone from this stream")
        try:
            await self._send({"type": "websocket.send", "bytes": data})
        except (OSError, RuntimeError) as error:
            self._open = False
            raise Unavailable("the host is gone from this stream") from error

    async def receive(self) -> bytes | None:
        if not self._open:
            return None
        message = await self._receive()
        if message["type"] == "websocket.receive":
            return bytes(message.get("bytes") or b"")
        self._open = False
        return None

    async def close(self) -> None:
        if self._open:
            self._open = False
            await self._send({"type": "websocket.close", "code": 1000})
