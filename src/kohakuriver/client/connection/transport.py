"""One HTTP connection pool to one host: requests with the credential, answers decoded, errors translated.

Rules: no proxy settings are looked at, redirects are answers (a credential goes to the address that was asked
for and nowhere else), the host proves itself on each new connection before a token goes over it, and the HTTP
library is imported when a client is made. It is httpcore2 without httpx2 around it, which takes longer to
import than a whole request.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from kohakuriver.client.connection.host_trust import HostAccess, Trust
from kohakuriver.client.errors import AnswerNotUnderstood, HostUnreachable, NotAHost, error_from_answer
from kohakuriver.client.records import Reply
from kohakuriver.models.errors import InvalidInput, KohakuRiverError, Unavailable

if TYPE_CHECKING:
    import httpcore2

Value = TypeVar("Value")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
LONG_WORK_SECONDS = 3600.0
"""For calls that answer when the work is done (making an environment, exporting a tarball)."""

_PATH_SAFE = "/%!$&'()*+,;=:@~"


class Answer:
    """An answer whose body has not been read; its errors are those of `Transport.failures`."""

    def __init__(self, response: "httpcore2.Response") -> None:
        self._response = response
        self.status: int = response.status
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
        }
        """By their names in small letters."""

    def read(self) -> bytes:
        return self._response.read()

    def pieces(self) -> Iterator[bytes]:
        return self._response.iter_stream()


class Transport:
    """Speaks HTTP to one host; use it from any number of threads.

    `failures`: what the library raises where there is no answer, or not all of one.
    """

    def __init__(self, access: HostAccess) -> None:
        from httpcore2 import NetworkError, ProtocolError, TimeoutException

        self.access = access
        self.url = access.url.rstrip("/")
        self.failures = (NetworkError, ProtocolError, TimeoutException)
        self._headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if access.token:
            self._headers["Authorization"] = f"Bearer {access.token}"
        self._pool = _pool(self.url, access.must_prove)

    def close(self) -> None:
        self._pool.close()

    def fetch(
        self,
        kind: type[Value],
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: object = None,
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> Reply[Value]:
        """Make one call and decode its answer; raises the error that the host's status stands for."""
        content = None if body is None else msgspec.json.encode(body)
        status, data = self.exchange(
            method, path, params=params, content=content, timeout_seconds=timeout_seconds
        )
        if not 200 <= status < 300:
            raise error_from_answer(status, data, self.url)
        return decode_reply(kind, data, self.url)

    def exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        content: bytes | None = None,
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> tuple[int, bytes]:
        """Make one call and return its status and body, whatever the status is."""
        given = {key: value for key, value in (params or {}).items() if value is not None}
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = self._pool.request(
                method, self._target(path, given), **self._options(headers, timeout_seconds, content)
            )
        except self.failures as error:
            raise self.unreachable(error) from error
        return response.status, response.content

    def send_stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any],
        content: Iterable[bytes],
        media_type: str,
        timeout_seconds: float,
    ) -> tuple[int, bytes]:
        """Make a call whose body is sent piece by piece; return its status and body.

        An error of `content` is raised as it is, and the host then sees a body that is not whole.
        """
        from httpcore2 import ConnectError

        headers = {"Content-Type": media_type}
        try:
            response = self._pool.request(
                method, self._target(path, params), **self._options(headers, timeout_seconds, iter(content))
            )
        except ConnectError as error:
            raise self.unreachable(error) from error
        except self.failures as error:
            raise Unavailable(f"the host broke the connection off before all was sent ({error})") from error
        return response.status, response.content

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], idle_seconds: float
    ) -> Iterator[Answer]:
        """Open an answer without reading its body. `failures` pass through as they are.

        `idle_seconds` bounds the silence between two pieces of the body.
        """
        with self._pool.stream(
            "GET", self._target(path, params), **self._options(headers, idle_seconds)
        ) as response:
            yield Answer(response)

    def _target(self, path: str, params: Mapping[str, Any]) -> str:
        texts = {name: _query_text(value) for name, value in params.items()}
        query = urlencode(texts, quote_via=quote)
        return self.url + quote(path, safe=_PATH_SAFE) + (f"?{query}" if query else "")

    def _options(
        self, headers: Mapping[str, str], seconds: float, content: bytes | Iterator[bytes] | None = None
    ) -> dict[str, Any]:
        pauses = {"connect": CONNECT_SECONDS, "read": seconds, "write": seconds, "pool": seconds}
        return {
            "headers": self._headers | dict(headers),
            "content": content,
            "extensions": {"timeout": pauses},
        }

    def unreachable(self, error: Exception) -> KohakuRiverError:
        """The error of a call that got no answer, or not all of one."""
        from httpcore2 import LocalProtocolError

        reason = str(error) or type(error).__name__
        if isinstance(error, LocalProtocolError):
            # Its text quotes what was to be sent, and that may be the token.
            return InvalidInput("the request holds a character that HTTP does not carry")
        if reason.startswith("illegal status line"):
            return NotAHost(
                f"what answers at {self.url} does not speak HTTP; "
                "give the host's address with --host and --port"
            )
        return HostUnreachable(
            f"no host answers at {self.url} ({reason}); "
            "start one with `kohakuriver up` or name another with --host and --port"
        )


def _query_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pool(url: str, trust: Trust | None) -> "httpcore2.ConnectionPool":
    """Connections to the host, each proven first if there is something to prove it against."""
    import ssl

    import httpcore2

    tls, connections = url.startswith("https:"), None
    if trust is not None:
        from kohakuriver.client.connection.proven_connection import ProvenConnections

        connections = ProvenConnections(trust, tls=tls)
    if tls:
        from kohakuriver.client.connection.proven_connection import certified
    return httpcore2.ConnectionPool(
        # Loading the certificate authorities takes longer than a whole request; plain HTTP needs none.
        ssl_context=certified() if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        max_connections=100,
        max_keepalive_connections=20,
        keepalive_expiry=5.0,
        network_backend=connections,
    )


def decode_reply(kind: type[Value], data: bytes, place: str = "") -> Reply[Value]:
    """Read a body as JSON and as the record that it is; an empty body counts as `{}`."""
    try:
        raw = msgspec.json.decode(data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        at = f" at {place}" if place else ""
        raise NotAHost(
            f"what answers{at} is no KohakuRiver host, or its answer was cut off; give the "
            "host's address with --host and --port"
        ) from error
    try:
        return Reply(msgspec.convert(raw, type=kind), raw)
    except msgspec.ValidationError as error:
        raise AnswerNotUnderstood(
            f"the host's answer does not fit this version ({error}); is it a KohakuRiver host, and as new?"
        ) from error
