"""The one door of the runner's API: every call without our host's valid signature is 401, known path or not.

It reads the body itself (at most `MAX_BODY_BYTES`), since the signature covers it, and signs each answer, so
that the host knows who answered. It stands outside the router: a route cannot be reached past it.
"""

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kohakuriver.models.errors import KohakuRiverError, TooLarge, Unauthenticated
from kohakuriver.wire.identity import LinkKeys
from kohakuriver.wire.messages import encode
from kohakuriver.wire.signing import ANSWER_HEADER, sign_answer, signer_of, verify

MAX_BODY_BYTES = 4 << 20
_BODY_PATIENCE_SECONDS = 30.0


class HostCredential:
    """Pure ASGI. `keys` gives the keys shared with the host, None before enrolment (then nothing passes)."""

    def __init__(self, app: ASGIApp, node: str, keys: Callable[[], LinkKeys | None]) -> None:
        self._app = app
        self._node = node
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            return
        credential = _header(scope, b"authorization")
        try:
            keys, body = await self._admit(scope, receive, credential)
        except KohakuRiverError as error:
            await _refuse(send, error)
            return
        answer = _Answer()
        await self._app(scope, _body_once(body), answer.take)
        await answer.deliver(
            send, lambda status, body: sign_answer(keys.node_to_host, credential, status, body)
        )

    async def _admit(self, scope: Scope, receive: Receive, credential: str) -> tuple[LinkKeys, bytes]:
        keys = self._keys()
        if keys is None or signer_of(credential) != self._node:
            raise Unauthenticated("this call needs the credential of this runner's own host")
        body = await _read_body(scope, receive)
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        verify(credential, keys.host_to_node, scope["method"], target, body)
        return keys, body


class _Answer:
    """An answer held back until it is whole; answers of this API are small."""

    def __init__(self) -> None:
        self._start: Message = {}
        self._body = bytearray()

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._body += message.get("body", b"")

    async def deliver(self, send: Send, signature: Callable[[int, bytes], str]) -> None:
        body = bytes(self._body)
        proof = signature(self._start["status"], body).encode()
        headers = [*self._start.get("headers", ()), (ANSWER_HEADER.lower().encode(), proof)]
        await send({**self._start, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    announced = _header(scope, b"content-length")
    if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise TooLarge(f"a request may hold {MAX_BODY_BYTES} bytes at most")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_PATIENCE_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Unauthenticated("the request ended before it was whole")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise TooLarge(f"a request may hold {MAX_BODY_BYTES} bytes at most")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError as error:
        raise Unauthenticated("the request did not arrive in time") from error


def _body_once(body: bytes) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def _header(scope: Scope, name: bytes) -> str:
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""


async def _refuse(send: Send, error: KohakuRiverError) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": encode({"detail": str(error)})})
