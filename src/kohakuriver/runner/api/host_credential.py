"""The one door of the runner's API: every call without our host's valid signature is 401, known path or not.

It reads the body itself, since the signature covers it (at most `MAX_BODY_BYTES`, more for a file's
content), and signs each answer, so that the host knows who answered. It stands outside the router: a route
cannot be reached past it.
"""

import asyncio
import re
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kohakuriver.files.records import MAX_WRITE_REQUEST_BYTES
from kohakuriver.front_door import prove
from kohakuriver.models.errors import KohakuRiverError, TooLarge, Unauthenticated
from kohakuriver.runner.api.streams import Streams
from kohakuriver.wire.identity import LinkKeys
from kohakuriver.wire.messages import encode
from kohakuriver.wire.signing import ANSWER_HEADER, sign_answer, signer_of, verify

MAX_BODY_BYTES = 4 << 20
_FILE_WRITE = re.compile(r"/api/fs/[0-9]+/write")
_LARGE_AT_ONCE = 2
"""Bodies beyond the usual size that are held at once; further ones wait in their senders."""
_BODY_PATIENCE_SECONDS = 30.0


class HostCredential:
    """Pure ASGI. `keys` gives the keys shared with the host, None before enrolment (then nothing passes)."""

    def __init__(
        self, app: ASGIApp, streams: Streams, node: str, keys: Callable[[], LinkKeys | None]
    ) -> None:
        self._app = app
        self._streams = streams
        self._node = node
        self._keys = keys
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        if _FILE_WRITE.fullmatch(scope["path"]):
            async with self._large:
                await self._call(scope, receive, send, MAX_WRITE_REQUEST_BYTES)
        else:
            await self._call(scope, receive, send, MAX_BODY_BYTES)

    async def _call(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        credential = _header(scope, b"authorization")
        try:
            keys = self._keys_for(credential)
            prove(scope)
            body = await _read_body(scope, receive, max_bytes)
            verify(credential, keys.host_to_node, scope["method"], _target(scope), body)
        except KohakuRiverError as error:
            await _refuse(send, error)
            return
        answer = _Answer()
        await self._app(scope, _body_once(body), answer.take)
        await answer.deliver(
            send, lambda status, body: sign_answer(keys.node_to_host, credential, status, body)
        )

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket that is not let in is refused before it is one (403, as the server has it)."""
        credential = _header(scope, b"authorization")
        try:
            keys = self._keys_for(credential)
            verify(credential, keys.host_to_node, "GET", _target(scope), b"")
            prove(scope)
        except KohakuRiverError:
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._streams.serve(scope, receive, send, keys, credential)

    def _keys_for(self, credential: str) -> LinkKeys:
        keys = self._keys()
        if keys is None or signer_of(credential) != self._node:
            raise Unauthenticated("this call needs the credential of this runner's own host")
        return keys


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


async def _read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    announced = _header(scope, b"content-length")
    if announced.isdigit() and int(announced) > max_bytes:
        raise TooLarge(f"a request may hold {max_bytes} bytes at most")
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_PATIENCE_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Unauthenticated("the request ended before it was whole")
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise TooLarge(f"a request may hold {max_bytes} bytes at most")
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError as error:
        raise Unauthenticated("the request did not arrive in time") from error


def _target(scope: Scope) -> str:
    """The path with its query as it was sent, which is what the host signs."""
    query = scope["query_string"].decode("latin-1")
    return str(scope["raw_path"].split(b"?", 1)[0].decode("latin-1")) + (f"?{query}" if query else "")


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
