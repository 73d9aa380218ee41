"""The only way into the runner's API: a call without our host's valid credential is 401, known path or not.

A call is proven by its headers: of one that is not, no body is read and nothing is held
(`wire.trust.signing`). Each is taken once (`wire.trust.call_windows`). Then its body is read, as much as was
proven and the route takes, and opened. Every answer to a proven call is sealed and proven, refusals too, so
that the host knows who answered. It stands outside the router: a route cannot be reached past it.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import nullcontext

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kohakuriver.files.records import MAX_WRITE_REQUEST_BYTES
from kohakuriver.front_door import prove
from kohakuriver.models.errors import KohakuRiverError, TooLarge, Unauthenticated
from kohakuriver.runner.api.streams import Streams
from kohakuriver.wire.messages import encode
from kohakuriver.wire.trust.call_windows import CallWindow
from kohakuriver.wire.trust.identity import LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import SEAL_BYTES, NotTaken, Received, receive_call
from kohakuriver.wire.trust.signing import ANSWER_HEADER, read_credential

MAX_BODY_BYTES = 4 << 20
_FILE_WRITE = re.compile(r"/api/fs/[0-9]+/write")
_LARGE_AT_ONCE = 2
"""Bodies beyond the usual size that are held at once; further ones wait in their senders."""
_BODY_PATIENCE_SECONDS = 30.0
_IN_A_THREAD_BYTES = 1 << 20
"""Opening a larger body takes so long that other calls would wait for it."""
_JSON = {"content-type": "application/json"}
_PLAIN = {"content-type": "text/plain; charset=utf-8"}
"""What the server adds to the refusal of a WebSocket by itself, which the proof must cover."""


class HostCredential:
    """Pure ASGI. `keys` gives the keys shared with the host, None before enrolment (then nothing passes)."""

    def __init__(
        self, app: ASGIApp, streams: Streams, node: str, keys: Callable[[], LinkKeys | None]
    ) -> None:
        self._app = app
        self._streams = streams
        self._node = node
        self._keys = keys
        self._window = CallWindow()
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
        elif scope["type"] == "http":
            await self._call(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call, _ = self._proven(scope, scope["method"])
        except KohakuRiverError as error:
            await _refuse(send, error)
            return
        answer = _Answer(call)
        try:
            call.take(self._window, time.monotonic())
            prove(scope)
            body = await self._body_of(scope, receive, call)
        except KohakuRiverError as error:
            await answer.refuse(send, error)
            return
        await self._app(scope, _body_once(body), answer.take)
        await answer.deliver(send)

    async def _body_of(self, scope: Scope, receive: Receive, call: Received) -> bytes:
        """Read as much as is proven to come, if the route takes that much."""
        length = call.credential.body.length
        limit = MAX_WRITE_REQUEST_BYTES if _FILE_WRITE.fullmatch(scope["path"]) else MAX_BODY_BYTES
        if length > limit + SEAL_BYTES:
            raise TooLarge(f"a request may hold {limit} bytes at most")
        if _header(scope, b"content-encoding"):
            raise Unauthenticated("the body is packed in a way that nobody agreed on")
        async with self._large if length > MAX_BODY_BYTES + SEAL_BYTES else nullcontext():
            try:
                async with asyncio.timeout(_BODY_PATIENCE_SECONDS):
                    content = await call.credential.body.read(_chunks(receive))
            except TimeoutError as error:
                raise Unauthenticated("the request did not arrive in time") from error
            if length > _IN_A_THREAD_BYTES:
                return await asyncio.to_thread(call.open, content)
            return call.open(content)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket that is not let in is refused before it is one (403, as the server has it)."""
        try:
            call, keys = self._proven(scope, "GET")
        except KohakuRiverError:
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            call.take(self._window, time.monotonic())
        except NotTaken as error:
            await _deny(send, call, error)
            return
        prove(scope)
        await self._streams.serve(scope, receive, send, keys, call.credential.text)

    def _proven(self, scope: Scope, method: str) -> tuple[Received, LinkKeys]:
        credential = read_credential(_header(scope, b"authorization"))
        keys = self._keys()
        if keys is None or credential.node != self._node:
            raise Unauthenticated("this call needs the credential of this runner's own host")
        return receive_call(Side.NODE, keys, credential, method, _target(scope)), keys


class _Answer:
    """An answer held back until it is whole; answers of this API are small."""

    def __init__(self, call: Received) -> None:
        self._call = call
        self._start: Message = {}
        self._body = bytearray()

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._body += message.get("body", b"")

    async def deliver(self, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._start["headers"]}
        headers.pop("content-length", None)
        await self._send(send, self._start["status"], headers, bytes(self._body))

    async def refuse(self, send: Send, error: KohakuRiverError) -> None:
        headers = error.headers if isinstance(error, NotTaken) else {}
        await self._send(send, error.http_status, {**_JSON, **headers}, encode({"detail": str(error)}))

    async def _send(self, send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
        content, proof = self._call.seal(status, body, headers)
        proven = {**headers, "content-length": str(len(content)), ANSWER_HEADER: proof}
        await send({"type": "http.response.start", "status": status, "headers": _raw(proven)})
        await send({"type": "http.response.body", "body": content})


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Unauthenticated("the request ended before it was whole")
        yield message.get("body", b"")
        more = message.get("more_body", False)


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


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _refuse(send: Send, error: KohakuRiverError) -> None:
    """Answer a stranger, and hear no more of it."""
    headers = _raw({**_JSON, "connection": "close"})
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": encode({"detail": str(error)})})


async def _deny(send: Send, call: Received, error: NotTaken) -> None:
    """Refuse a stream of our host, which is to know that it was us."""
    proven = {**_PLAIN, **error.headers}
    _, proof = call.seal(error.http_status, b"", proven)
    headers = _raw({**proven, ANSWER_HEADER: proof})
    await send({"type": "websocket.http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b""})
