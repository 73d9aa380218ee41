"""The last boundary of a request: what nobody expected is logged here, and answered with 500.

Its traceback is logged once in a while for each place that it comes from, since whoever can cause it once can
do so a thousand times a second.
"""

import traceback

import structlog
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kohakuriver.host.api.answers import encode, json_bytes
from kohakuriver.repeated_news import RepeatedNews

log = structlog.get_logger()

SENTENCE = "the host met an internal error, which is in its log; please report it"


class UnexpectedFaults:
    """Plain ASGI around the routes. After an answer has begun, the connection ends without its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._news = RepeatedNews()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun = False

        async def watching(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watching)
        except Exception as error:  # noqa: BLE001 - boundary of one request
            self._log(HTTPConnection(scope), error)
            if not begun:
                answer = json_bytes(encode({"detail": SENTENCE}), 500)
                await answer(scope, receive, send)

    def _log(self, connection: HTTPConnection, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = (type(error).__name__, *((frame.filename, frame.lineno) for frame in last))
        if self._news.due(place):
            earlier = self._news.take_kept_back(place)
            path = connection.url.path
            log.error("request_failed", path=path[:200], exc_info=error, more_before=earlier)
