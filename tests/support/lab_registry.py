"""A registry on loopback that images are pulled from, and that can ask for credentials, be busy, or be away.

It speaks the part of the registry protocol (v2) that a pull needs, over plain HTTP, which engines accept from
127.0.0.0/8, or over TLS. Images are made of files given here: one layer, and a configuration.
"""

import base64
import contextlib
import gzip
import hashlib
import json
import secrets
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.static_images import busybox_tree

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ0aGUgbGFiIn0.c2lnbmF0dXJl"
"""Of the form that registries give out."""
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class LabRegistry:
    """`address` is stable over `go_away` and `come_back`.

    `busy`: statuses that the next requests of a manifest are answered with. `credentials`: (user, password)
    that it asks for; with `bearer` by way of a token of its own. `identity_token`: a refresh token that it
    takes as well. `gate`: blobs are sent once it is set. `tokens_end`: how many more blobs are asked for with
    a token that has just ended. `quotes`: its refusals quote what it was sent, and name a token. `host`: the
    address that it listens on, with TLS if there is a `certificate`.
    """

    host: str = "127.0.0.1"
    certificate: ssl.SSLContext | None = None
    tokens_end: int = 0
    quotes: bool = False

    busy: list[int] = field(default_factory=list)
    always_busy: int = 0
    credentials: tuple[str, str] | None = None
    bearer: bool = False
    identity_token: str | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    """Paths of manifests that were asked for, refused ones included."""
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _tags: dict[tuple[str, str], str] = field(default_factory=dict)
    _tokens: set[str] = field(default_factory=set)
    _server: ThreadingHTTPServer | None = None
    _thread: threading.Thread | None = None
    _port: int = 0

    @property
    def address(self) -> str:
        return f"{self.host}:{self._port}"

    def come_back(self) -> None:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry._answer(self)

            do_HEAD = do_GET

            def do_POST(self) -> None:
                registry._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                return None

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Whoever does not like the certificate leaves in the middle of the handshake."""

        self._server = Server((self.host, self._port), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            # The handshake is the handler's, whose thread may wait for it.
            self._server.socket = self.certificate.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def go_away(self) -> None:
        """From now on connections are refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def put(
        self,
        name: str,
        tag: str,
        tree: bytes | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """Make an image and point the tag at it; return the digest of its manifest."""
        layer_tar = busybox_tree() if tree is None else tree
        layer = gzip.compress(layer_tar, 1, mtime=0)
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer_tar)]},
            "history": [{"created_by": f"lab for {name}:{tag}"}],
        }
        image = json.dumps(document).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(image), "digest": _digest(image)},
            "layers": [{"mediaType": _LAYER, "size": len(layer), "digest": _digest(layer)}],
        }
        encoded = json.dumps(manifest).encode()
        for content in (layer, image, encoded):
            self._blobs[_digest(content)] = content
        self._tags[name, tag] = _digest(encoded)
        return _digest(encoded)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        # What is sent with a request is read, so that the connection can be used again.
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        url = urlsplit(request.path)
        if "/blobs/" in url.path and self.tokens_end:
            self.tokens_end -= 1
            self._tokens.clear()
        if url.path == "/token":
            self._give_token(request, body)
        elif not self._may_pass(request):
            self._challenge(request)
        elif url.path == "/v2/":
            _send(request, 200, b"{}")
        else:
            self._give_content(request, url.path)

    def _give_content(self, request: BaseHTTPRequestHandler, path: str) -> None:
        name, kind, reference = path.removeprefix("/v2/").rsplit("/", 2)
        if kind == "manifests":
            self.asked.append(path)
            status = self.busy.pop(0) if self.busy else self.always_busy
            if status:
                code = {429: "TOOMANYREQUESTS", 503: "UNAVAILABLE"}.get(status, "UNKNOWN")
                _send_error(request, status, code)
                return
            digest = self._tags.get((name, reference), reference)
            content = self._blobs.get(digest)
            if content is None:
                _send_error(request, 404, "MANIFEST_UNKNOWN")
                return
            headers = {"Content-Type": _MANIFEST, "Docker-Content-Digest": digest}
            _send(request, 200, content, headers)
            return
        self.gate.wait(60)
        content = self._blobs.get(reference)
        if content is None:
            _send_error(request, 404, "BLOB_UNKNOWN")
        else:
            _send(request, 200, content, {"Content-Type": "application/octet-stream"})

    def _may_pass(self, request: BaseHTTPRequestHandler) -> bool:
        if self.credentials is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if self.bearer:
            return scheme == "Bearer" and given in self._tokens
        return scheme == "Basic" and self._knows(given)

    def _knows(self, encoded: str) -> bool:
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return (user, password) == self.credentials

    def _challenge(self, request: BaseHTTPRequestHandler) -> None:
        way = (
            f'Bearer realm="http://{self.address}/token",service="lab"'
            if self.bearer
            else 'Basic realm="lab"'
        )
        self._refuse(request, {"WWW-Authenticate": way})

    def _refuse(self, request: BaseHTTPRequestHandler, headers: Mapping[str, str] | None = None) -> None:
        said = (
            f"the lab does not take {request.headers.get('Authorization')} nor {TOKEN}" if self.quotes else ""
        )
        _send_error(request, 401, "UNAUTHORIZED", headers, said)

    def _give_token(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """By basic credentials (GET), or by a form with a refresh token or a password (POST)."""
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        is_known = scheme == "Basic" and self._knows(given)
        if form:
            refresh = form.get("refresh_token")
            is_known = (refresh is not None and refresh == self.identity_token) or (
                (form.get("username"), form.get("password")) == self.credentials
            )
        if not is_known:
            self._refuse(request)
            return
        token = secrets.token_hex(8)
        self._tokens.add(token)
        _send(request, 200, json.dumps({"token": token, "access_token": token}).encode())


def _send(
    request: BaseHTTPRequestHandler, status: int, content: bytes, headers: Mapping[str, str] | None = None
) -> None:
    request.send_response(status)
    known = {"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"}
    for name, value in (known | dict(headers or {})).items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    if request.command != "HEAD":
        with contextlib.suppress(ConnectionError):
            request.wfile.write(content)


def _send_error(
    request: BaseHTTPRequestHandler,
    status: int,
    code: str,
    headers: Mapping[str, str] | None = None,
    said: str = "",
) -> None:
    body = {"errors": [{"code": code, "message": said or f"the lab says {status}", "detail": None}]}
    _send(request, status, json.dumps(body).encode(), headers)


@contextlib.contextmanager
def lab_registry(host: str = "127.0.0.1", certificate: ssl.SSLContext | None = None) -> Iterator[LabRegistry]:
    """A registry that answers, without images yet."""
    registry = LabRegistry(host=host, certificate=certificate)
    registry.gate.set()
    registry.come_back()
    try:
        yield registry
    finally:
        registry.gate.set()
        registry.go_away()
