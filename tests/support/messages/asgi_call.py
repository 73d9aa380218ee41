"""One request to an ASGI application, without a socket."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


NOT_TO_BE_READ = None
"""A body that the application must not ask for."""


@dataclass(frozen=True)
class NeverComing:
    """A body that does not come before the event."""

    until: asyncio.Event


Body = bytes | NeverComing | None


async def call(  # type: ignore[no-untyped-def]
    app,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: Body = b"",
    kind: str = "http",
    *,
    client: str = "127.0.0.1",
) -> Answer:
    """`target` is the path with its query. `kind` is `http` or `websocket` (its refusal counts as 403)."""
    path, _, query = target.partition("?")
    scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": kind,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()
        ],
        "client": (client, 1),
        "server": ("127.0.0.1", 2),
        "subprotocols": [text for name, text in (headers or {}).items() if name == "Sec-WebSocket-Protocol"],
    }
    whole = body if isinstance(body, bytes) else b""
    pieces = [whole[start : start + 65536] for start in range(0, max(len(whole), 1), 65536)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if kind == "websocket":
            return {"type": "websocket.connect"}
        assert body is not NOT_TO_BE_READ, "the body was read"
        if isinstance(body, NeverComing):
            await body.until.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if kind == "websocket" and sent[0]["type"] != "websocket.http.response.start":
        return Answer(403 if sent[0]["type"] == "websocket.close" else 101, {}, b"")
    start = next(message for message in sent if message["type"].endswith("http.response.start"))
    content = b"".join(
        message.get("body", b"") for message in sent if message["type"].endswith("http.response.body")
    )
    answered = {name.decode(): value.decode() for name, value in start.get("headers", [])}
    return Answer(start["status"], answered, content)
