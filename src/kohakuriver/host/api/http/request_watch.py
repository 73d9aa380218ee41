"""Plain ASGI around the whole interface, so that what is refused before a handler counts as well.

One layer for all who want to know: each one more costs every request two calls.
"""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kohakuriver.host.api.http.auditing import AuditTrails
from kohakuriver.host.api.http.request_figures import RequestFigures

BEGUN_KEY = "kohakuriver.answer_begun"
"""In the scope of a request, once something of its answer was sent."""

_ACCEPTED, _CLOSED = 101, 403


class WatchRequests:
    """Tells the figures of every answer, and the trails how each request and WebSocket began its answer."""

    def __init__(self, app: ASGIApp, figures: RequestFigures, trails: AuditTrails) -> None:
        self._app = app
        self._figures = figures
        self._trails = trails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self._watch_request(scope, receive, send)
        elif kind == "websocket":
            await self._watch_socket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _watch_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        figures, trails, began = self._figures, self._trails, time.perf_counter()
        settled = False

        async def watching(message: Message) -> None:
            nonlocal settled
            if message["type"] == "http.response.start":
                settled = scope[BEGUN_KEY] = True
                status = message["status"]
                figures.add(scope, status, time.perf_counter() - began)
                trails.settle(scope, status)
            await send(message)

        trails.begin(scope)
        figures.open += 1
        try:
            await self._app(scope, receive, watching)
        except BaseException:
            # What nobody foresaw is answered outside of this.
            if not settled:
                trails.settle(scope, 500)
            raise
        finally:
            figures.open -= 1

    async def _watch_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        settled = False

        def settle(status: int) -> None:
            nonlocal settled
            if not settled:
                settled = True
                self._trails.settle(scope, status)

        async def watching(message: Message) -> None:
            scope[BEGUN_KEY] = True
            if message["type"] == "websocket.http.response.start":
                settle(message["status"])
            elif message["type"] == "websocket.accept":
                settle(_ACCEPTED)
            elif message["type"] == "websocket.close":
                settle(_CLOSED)
            await send(message)

        self._trails.begin(scope)
        try:
            await self._app(scope, receive, watching)
        except BaseException:
            settle(500)
            raise
