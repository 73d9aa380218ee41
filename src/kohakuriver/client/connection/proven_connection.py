"""Connections on which the host proves who it is before anything with a token is written.

The proof is one small HTTP request on the very connection that the token then goes over (inside TLS where
there is TLS), so it holds for reconnections as well: a process that took the host's port meanwhile fails it.
A reverse proxy passes the request on. `ProvenConnections` is what httpcore calls a network backend.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from httpcore2 import (
    ConnectError,
    NetworkBackend,
    NetworkError,
    NetworkStream,
    SyncBackend,
    TimeoutException,
)

from kohakuriver.client.connection.host_trust import Trust
from kohakuriver.client.errors import HostNotProven, HostUnreachable
from kohakuriver.models.errors import InvalidInput, Unavailable
from kohakuriver.models.numbers import whole_number
from kohakuriver.wire.trust.host_proof import MAX_ANSWER_BYTES, PROVE_PATH, HostQuestion, ProofAnswer

if TYPE_CHECKING:
    import socket
    import ssl

PROOF_SECONDS = 10.0
_MAX_HEAD_BYTES = 8192
_MOST_INTERIM_ANSWERS = 4
_HTTP = b"HTTP/1."


class ProvenConnections(NetworkBackend):
    """Opens connections to one host, each proven against `trust` before it is handed out.

    Errors: HostNotProven for one that is not the host, HostUnreachable while there is no host behind a proxy,
    httpcore's own for the rest.
    """

    def __init__(self, trust: Trust, *, tls: bool) -> None:
        self._trust = trust
        self._tls = tls
        self._backend = SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        stream = self._connect(host, port, timeout, local_address, socket_options)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._tls:
            return _Unproven(stream, self._trust, place)
        return _proven(stream, self._trust, place)

    def _connect(self, host: str, port: int, *options: Any) -> NetworkStream:
        if host.lower() == "localhost":
            # The name may stand for ::1 too, where somebody could listen who passes the proof on to the host.
            try:
                return self._backend.connect_tcp("127.0.0.1", port, *options)
            except ConnectError:
                pass  # a host that listens only at ::1
        return self._backend.connect_tcp(host, port, *options)

    def open_socket(self, host: str, port: int, seconds: float) -> "socket.socket":
        """A connected and proven socket, with TLS where the URL has it."""
        stream = self.connect_tcp(host, port, seconds)
        if self._tls:
            stream = stream.start_tls(certified(), host, seconds)
        opened: socket.socket = stream.get_extra_info("socket")
        return opened


def certified() -> "ssl.SSLContext":
    """TLS with the authorities of this machine, whatever the environment says of others."""
    from httpx2 import create_ssl_context

    return create_ssl_context(trust_env=False)


class _Unproven(NetworkStream):
    """A connection on which nothing can be done but begin TLS."""

    def __init__(self, stream: NetworkStream, trust: Trust, place: str) -> None:
        self._stream = stream
        self._trust = trust
        self._place = place

    def start_tls(
        self, ssl_context: "ssl.SSLContext", server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _proven(stream, self._trust, self._place)

    def close(self) -> None:
        self._stream.close()


def _proven(stream: NetworkStream, trust: Trust, place: str) -> NetworkStream:
    try:
        question = HostQuestion()
        answer = _Exchange(stream, place).ask(msgspec.json.encode(question.question))
        try:
            shown = question.proven_fingerprint(msgspec.json.decode(answer, type=ProofAnswer))
        except (InvalidInput, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _not_proven(place, str(error)) from error
        trust.check(place, shown)
    except BaseException:
        stream.close()
        raise
    return stream


def _not_proven(place: str, reason: str) -> HostNotProven:
    return HostNotProven(
        f"what answers at {place} does not prove that it is a KohakuRiver host ({reason}), so it was sent no "
        "token; if it is a host of an older version, install this version there"
    )


class _Exchange:
    """The one request on a fresh connection; all of it together has a deadline."""

    def __init__(self, stream: NetworkStream, place: str) -> None:
        self._stream = stream
        self._place = place
        self._deadline = time.monotonic() + PROOF_SECONDS
        self._received = b""

    def ask(self, body: bytes) -> bytes:
        lines = (
            f"POST {PROVE_PATH} HTTP/1.1",
            f"Host: {self._place}",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        self._send("\r\n".join((*lines, "", "")).encode("ascii") + body)
        status, headers = self._answer_head()
        # A proxy that does not reach the host answers by itself, in whatever form it likes.
        if status >= 500 or status == 429:
            raise HostUnreachable(
                f"no host answers at {self._place}: what stands before it says HTTP status {status}; "
                "look whether the host runs, and whether the proxy reaches it"
            )
        if status != 200:
            raise _not_proven(self._place, f"it answers with HTTP status {status}")
        length = whole_number(headers.get("content-length", ""), 6)
        if length is None:
            raise _not_proven(self._place, "its answer does not tell its size")
        if length > MAX_ANSWER_BYTES:
            raise _not_proven(self._place, "its answer is too long")
        answer = self._take(length)
        if self._received:
            raise _not_proven(self._place, "it says more than it was asked")
        if "close" in headers.get("connection", "").lower():
            raise Unavailable(
                f"what answers at {self._place} closes each connection after one request; "
                "let the proxy in front of the host keep connections open"
            )
        return answer

    def _answer_head(self) -> tuple[int, dict[str, str]]:
        for _ in range(_MOST_INTERIM_ANSWERS):
            while b"\r\n\r\n" not in self._received:
                if len(self._received) > _MAX_HEAD_BYTES:
                    raise _not_proven(self._place, "its answer does not end")
                self._receive()
                if not _HTTP.startswith(self._received[: len(_HTTP)]):
                    raise _not_proven(self._place, "it does not speak HTTP")
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            first, *lines = head.decode("latin-1").split("\r\n")
            parts = first.split(" ", 2)
            if not parts[0].startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdecimal():
                break
            status = int(parts[1][:4])
            if status >= 200:
                pairs = (line.partition(":") for line in lines)
                return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
        raise _not_proven(self._place, "it does not speak HTTP")

    def _take(self, length: int) -> bytes:
        while len(self._received) < length:
            self._receive()
        taken, self._received = self._received[:length], self._received[length:]
        return taken

    def _send(self, data: bytes) -> None:
        try:
            self._stream.write(data, self._seconds_left())
        except (NetworkError, TimeoutException) as error:
            raise ConnectError(f"the host did not prove itself: {error}") from error

    def _receive(self) -> None:
        """To those who wait for the connection, a failure here is one to connect."""
        try:
            data = self._stream.read(4096, self._seconds_left())
        except (NetworkError, TimeoutException) as error:
            raise ConnectError(f"the host did not prove itself: {error}") from error
        if not data:
            raise ConnectError("the connection was closed before the host had proven itself")
        self._received += data

    def _seconds_left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ConnectError("the host did not prove itself in time")
        return left
