"""One request to an ASGI application, without a socket."""

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


async def call(  # type: ignore[no-untyped-def]
    app,
    method: str,
    target: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    kind: str = "http",
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
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "subprotocols": [],
    }
    pieces = [body[start : start + 65536] for start in range(0, max(len(body), 1), 65536)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if kind == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if kind == "websocket":
        return Answer(403 if sent[0]["type"] == "websocket.close" else 101, {}, b"")
    start = next(message for message in sent if message["type"] == "http.response.start")
    content = b"".join(
        message.get("body", b"") for message in sent if message["type"] == "http.response.body"
    )
    answered = {name.decode(): value.decode() for name, value in start.get("headers", [])}
    return Answer(start["status"], answered, content)
