"""Errors to HTTP: one shape, `{"detail": sentence}`, and `field` where one field is to blame."""

import json
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.websockets import WebSocket

from kohakuriver.host.api.http.answers import json_answer
from kohakuriver.host.api.http.auditing import trail_of
from kohakuriver.host.api.http.known_names import not_known
from kohakuriver.models.errors import InvalidInput, KohakuRiverError, TooMany, Unauthenticated
from kohakuriver.repeated_news import RepeatedNews
from kohakuriver.wire.trust.sealed_calls import NotTaken
from kohakuriver.wire.trust.signing import EPOCH_HEADER

log = structlog.get_logger()

_SENTENCES = {
    404: "there is nothing at this address; /docs lists what there is",
    405: "this address does not take that method; /docs lists which it takes",
}


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    sentence: str
    field: str | None = None
    headers: Mapping[str, str] | None = None


class FaultLog:
    """Logs what nobody expected: of each place that it comes from once in a while, since whoever can cause it
    once can do so a thousand times a second.
    """

    def __init__(self) -> None:
        self._news = RepeatedNews()

    def add(self, connection: HTTPConnection, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = (type(error).__name__, *((frame.filename, frame.lineno) for frame in last))
        if self._news.due(place):
            path, earlier = connection.url.path[:200], self._news.take_kept_back(place)
            log.error("request_failed", path=path, exc_info=error, more_before=earlier)


def install_error_handlers(app: FastAPI, faults: FaultLog) -> None:
    """Have every error of every route answered in the one shape, unexpected ones logged as well."""

    async def unexpected(connection: HTTPConnection, error: Exception) -> Response | None:
        faults.add(connection, error)
        return await _on_error(connection, error)

    for kind in (KohakuRiverError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, cast("Any", _on_error))
    app.add_exception_handler(Exception, cast("Any", unexpected))


async def _on_error(connection: HTTPConnection, error: Exception) -> Response | None:
    refusal = _refusal_of(error)
    if refusal.status == 405:
        refusal = replace(refusal, headers={"Allow": _allowed_methods(connection)})
    trail = trail_of(connection.scope)
    trail.reason = refusal.sentence
    # Each node hears every few minutes that a new epoch has begun, and calls again.
    trail.ordinary = isinstance(error, NotTaken) and EPOCH_HEADER in error.headers
    if refusal.status >= 500 and isinstance(error, KohakuRiverError):
        log.warning("request_failed", path=connection.url.path, reason=str(error))
    document = {"detail": refusal.sentence, **({"field": refusal.field} if refusal.field else {})}
    # Not msgspec: a sentence may quote what is no valid text (a lone surrogate), which this escapes.
    body = json.dumps(document).encode()
    answer = json_answer(connection, body, refusal.status, refusal.headers)
    if isinstance(connection, WebSocket):
        await connection.send_denial_response(answer)
        return None
    return answer


def _allowed_methods(connection: HTTPConnection) -> str:
    """The router names the methods of one route; here each method of an address has a route of its own."""
    routes = [route for route in connection.app.routes if isinstance(route, Route)]
    here = [route for route in routes if route.matches(connection.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))


def _refusal_of(error: Exception) -> _Refusal:
    if isinstance(error, RequestValidationError):
        error = invalid_input(error.errors())
    if isinstance(error, InvalidInput):
        return _Refusal(error.http_status, str(error), error.field)
    if isinstance(error, NotTaken):
        return _Refusal(error.http_status, str(error), headers=error.headers)
    if isinstance(error, Unauthenticated):
        return _Refusal(error.http_status, str(error), headers={"WWW-Authenticate": "Bearer"})
    if isinstance(error, TooMany):
        return _Refusal(error.http_status, str(error), headers={"Retry-After": "10"})
    if isinstance(error, KohakuRiverError):
        return _Refusal(error.http_status, str(error))
    if isinstance(error, HTTPException):
        sentence = _SENTENCES.get(error.status_code, str(error.detail))
        return _Refusal(error.status_code, sentence, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return _Refusal(400, "the request ended in the middle of its body")
    return _Refusal(500, "the host met an internal error, which is in its log; please report it")


def invalid_input(faults: Sequence[Any], known: Collection[str] = ()) -> InvalidInput:
    """Make one sentence of pydantic's list of faults; the field is that of the first one.

    `known`: the names that the model has, for one that it has not.
    """
    parts = [(_path_of(fault), _sentence_of(fault, known)) for fault in faults[:5]]
    sentence = "; ".join(f"{path}: {text}" if path else text for path, text in parts)
    if len(faults) > 5:
        sentence += f"; and {len(faults) - 5} more"
    return InvalidInput(sentence, field=parts[0][0] or None)


def _sentence_of(fault: Any, known: Collection[str]) -> str:
    if fault["type"] == "extra_forbidden":
        return not_known(str(fault["loc"][-1]), known)
    return str(fault["msg"])


def _path_of(fault: Any) -> str:
    places = [str(place)[:80] for place in fault["loc"]]
    return ".".join(places[1:] if places and places[0] in ("body", "query", "path", "header") else places)
