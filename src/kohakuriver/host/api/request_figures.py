"""Counts of requests by route and status. Labels are routes as declared, never what was asked for."""

import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kohakuriver.host.durations import Durations

UNKNOWN_ROUTE = "none"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestFigures:
    """`count`: by (method, route, status). `seconds`: until the answer began, by route.

    Bounded: methods that nobody knows count as one, and so do addresses that no route has.
    """

    def __init__(self) -> None:
        self.count: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, Durations] = {}
        self.open = 0

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self.count[method, route, status] += 1
        durations = self.seconds.get(route)
        if durations is None:
            durations = self.seconds[route] = Durations()
        durations.add(seconds)


class CountRequests:
    """Plain ASGI around the whole interface, so that refusals count as well."""

    def __init__(self, app: ASGIApp, figures: RequestFigures) -> None:
        self._app = app
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        figures, began = self._figures, time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                figures.add(scope, message["status"], time.perf_counter() - began)
            await send(message)

        figures.open += 1
        try:
            await self._app(scope, receive, counting)
        finally:
            figures.open -= 1
