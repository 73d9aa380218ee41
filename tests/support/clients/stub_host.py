"""A scripted stand-in for the host's HTTP API, for tests of the client and the command line.

It answers what a test put there, keeps every request that it got, and can break off an answer in the middle.
"""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from kohakuriver.client.connection.host_trust import HostAccess, KnownHost
from kohakuriver.wire.trust.host_proof import PROVE_PATH, ProofQuestion, answer_question
from kohakuriver.wire.trust.identity import Identity

CUT = object()
"""In a streamed body: close the connection here, without the end that HTTP asks for."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """`body`: dict or list for JSON, bytes, or any other iterable of bytes (and CUT), sent in chunks."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Request], Answer]


class StubHost:
    """Routes are exact paths; what has none is answered 404 as the host does."""

    def __init__(self, port: int = 0, identity: Identity | None = None) -> None:
        self.identity = identity or Identity.generate()
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._routes: dict[tuple[str, str], Script] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, body: Any = None, status: int = 200) -> None:
        """Answer this call with `body` always."""
        self.script(method, path, lambda request: Answer({} if body is None else body, status))

    def script(self, method: str, path: str, script: Script) -> None:
        """Answer this call with what `script` gives."""
        self._routes[method, path] = script

    def calls(self, method: str, path: str) -> list[Request]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    @property
    def access(self) -> HostAccess:
        """This host as a client without a token knows it."""
        return HostAccess(self.url)

    def access_with(self, token: str) -> HostAccess:
        """This host as a client with a token knows it."""
        return HostAccess(self.url, token, KnownHost(self.identity.fingerprint, "the test"))

    def respond(self, request: Request) -> Answer:
        """Proofs are given and not kept: they are part of a connection, not of what a test asks for."""
        if (request.method, request.path) == ("POST", PROVE_PATH):
            question = msgspec.json.decode(request.body, type=ProofQuestion)
            return Answer(msgspec.json.encode(answer_question(self.identity, question)))
        self.requests.append(request)
        script = self._routes.get((request.method, request.path))
        if script is None:
            return Answer({"detail": f"there is nothing at {request.path}"}, 404)
        return script(request)

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Serve only HTTPS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def drop_connections(self) -> None:
        """Break off every connection that is open, as the end of a process does."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def has_connection(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.append(connection)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def stub_host() -> Iterator[StubHost]:
    host = StubHost()
    try:
        yield host
    finally:
        host.close()


def task_record(task_id: str = "310000000000004242", **fields: Any) -> dict[str, Any]:
    """A task as the host writes it, with a field that no client knows yet."""
    record = {
        "task_id": task_id,
        "batch_id": None,
        "name": None,
        "task_type": "command",
        "status": "completed",
        "owner": "admin",
        "priority": 0,
        "command": "echo",
        "arguments": ["hello world"],
        "env_vars": {},
        "required_cores": 1,
        "required_memory_bytes": 268435456,
        "required_gpus": [],
        "target": None,
        "container_name": "kohakuriver-base",
        "registry_image": None,
        "assigned_node": "n1",
        "attempt": 1,
        "exit_code": 0,
        "error_message": None,
        "pending_reasons": [],
        "submitted_at": "2026-11-20T10:00:00Z",
        "started_at": "2026-11-20T10:00:01Z",
        "completed_at": "2026-11-20T10:00:03Z",
        "field_of_the_future": {"answer": 42},
    }
    return record | fields


def serve_task(
    host: StubHost, record: dict[str, Any], stdout: Iterable[bytes] = (), stderr: Iterable[bytes] = ()
) -> None:
    """Serve one task: its submission, its status, its output."""
    task_id = record["task_id"]
    host.answer("POST", "/api/submit", {"message": "accepted", "task_ids": [task_id]}, 202)
    host.answer("GET", f"/api/status/{task_id}", record)
    for stream, chunks in (("stdout", list(stdout)), ("stderr", list(stderr))):
        host.script("GET", f"/api/tasks/{task_id}/{stream}", partial(_answer_in, chunks))


def _answer_in(chunks: list[bytes], _request: Request) -> Answer:
    return Answer(tuple(chunks))


def _handler_for(host: StubHost) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"host": host})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host: StubHost

    def setup(self) -> None:
        super().setup()
        self.host.has_connection(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `StubHost.requests` instead."""

    def handle_any(self) -> None:
        split = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=split.path,
            query=dict(parse_qsl(split.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._body(),
        )
        answer = self.host.respond(request)
        try:
            self._send(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _body(self) -> bytes:
        """Empty for a streamed one that its sender broke off."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline() or b"0", 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(pieces) if self.rfile.readline() else b""

    do_GET = do_POST = do_DELETE = do_PUT = handle_any

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if isinstance(answer.body, bytes):
            self._send_whole(answer.body)
        elif isinstance(answer.body, dict | list) and not _is_stream(answer.body):
            self._send_whole(json.dumps(answer.body).encode())
        else:
            self._send_chunks(answer.body)

    def _send_whole(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_chunks(self, chunks: Iterable[Any]) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            if chunk is CUT:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if chunk:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def _is_stream(body: Any) -> bool:
    return (
        isinstance(body, list) and bool(body) and all(item is CUT or isinstance(item, bytes) for item in body)
    )
