"""How routes are listed and how they answer: plain bytes of JSON, with nothing between encoder and socket."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from kohakuriver.host.api.http.auditing import Rule
from kohakuriver.host.api.permissions import CALL_KEY
from kohakuriver.wire.trust import signing
from kohakuriver.wire.trust.sealed_calls import Received

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One HTTP route. Its permission and its body are what its handler's signature says.

    `answers` is the type of the answer, for the description; None: not JSON (`media_type` says what).
    `takes`: media type of a body that is streamed, where there is one. `audit`: what `auditing` has of it.
    """

    method: str
    path: str
    handler: Callable[..., Awaitable[Response]]
    answers: Any = None
    status: int = 200
    errors: tuple[int, ...] = ()
    media_type: str = "application/json"
    takes: str | None = None
    audit: Rule | None = None


class Message(msgspec.Struct, frozen=True):
    """A sentence about what was done."""

    message: str


def encode(answer: object) -> bytes:
    return _encoder.encode(answer)


def json_bytes(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def answer(value: object, status: int = 200) -> Response:
    return Response(_encoder.encode(value), status, media_type="application/json")


def json_answer(
    connection: HTTPConnection, body: bytes, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer, sealed and proven for the runner that called if it was one."""
    call: Received | None = connection.scope.get(CALL_KEY)
    if call is None:
        return Response(body, status, headers, media_type="application/json")
    proven = {**(headers or {}), "content-type": "application/json"}
    content, proof = call.seal(status, body, proven)
    return Response(content, status, {**proven, signing.ANSWER_HEADER: proof})
