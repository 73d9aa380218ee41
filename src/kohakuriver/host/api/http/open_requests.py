"""Requests that are being answered, and how they end when the host stops.

Rules: each gets an answer that its client knows how to wait out, 503 with Retry-After, unless its answer has
begun, which then is seen not to be whole. What only reads, and what waits for an event, ends at once and can
be asked again; what changes something gets its time first, and is ended when that is over.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from kohakuriver.host.api.http.request_watch import BEGUN_KEY

RETRY_AFTER_SECONDS = 2
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ASK_AGAIN = "the host is being stopped; ask again when it is back"
_LOOK_AGAIN = "the host was stopped before this was done; look whether it was, and ask again if not"


@dataclass(slots=True)
class _OpenRequest:
    """`ended`: by us, because the host stops."""

    scope: Scope
    ended: bool = False

    @property
    def begun(self) -> bool:
        """Whether something of its answer was sent."""
        return BEGUN_KEY in self.scope


class OpenRequests:
    """All requests of one application; used only from its event loop."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Task[Any], _OpenRequest] = {}
        self._stopping = False

    def end_waiting(self) -> None:
        """The host stops: end what only reads or waits, now and from now on."""
        self._stopping = True
        self._end(lambda request: _only_waits(request.scope) and not request.begun)

    def end_all(self) -> None:
        """The time that a stop gives is over: end everything."""
        self._end(lambda request: True)

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, unless the host stops before it does."""
        task = asyncio.current_task()
        if task is None or scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        if self._stopping and _only_waits(scope):
            await _refuse(scope, send, _ASK_AGAIN)
            return
        request = self._open[task] = _OpenRequest(scope)
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if not request.ended:
                raise
            task.uncancel()
            if not request.begun:
                await _refuse(scope, send, _ASK_AGAIN if _only_waits(scope) else _LOOK_AGAIN)
        finally:
            del self._open[task]

    def _end(self, wanted: Callable[[_OpenRequest], bool]) -> None:
        for task, request in self._open.items():
            if not request.ended and wanted(request):
                request.ended = True
                task.cancel()


def _only_waits(scope: Scope) -> bool:
    return scope["type"] == "websocket" or scope["method"] in _READING


async def _refuse(scope: Scope, send: Send, sentence: str) -> None:
    """Plain, also to a runner: who seals its answers may be gone already."""
    body = json.dumps({"detail": sentence}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_SECONDS).encode()),
        (b"connection", b"close"),
    ]
    kind = "http" if scope["type"] == "http" else "websocket.http"
    await send({"type": f"{kind}.response.start", "status": 503, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
