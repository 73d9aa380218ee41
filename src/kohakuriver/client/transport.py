"""One HTTP connection pool to one host: requests with the credential, answers decoded, errors translated.

Rules: proxy settings of the environment are never used, redirects are never followed (a credential goes to
the address that was asked for and nowhere else), the host proves itself on each new connection before a token
goes over it, and the HTTP library is imported when a client is made.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kohakuriver.client.errors import AnswerNotUnderstood, HostUnreachable, error_from_answer
from kohakuriver.client.host_trust import HostAccess, Trust
from kohakuriver.client.records import Reply
from kohakuriver.models.errors import Unavailable

if TYPE_CHECKING:
    import httpx2

Value = TypeVar("Value")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
LONG_WORK_SECONDS = 3600.0
"""For calls that answer when the work is done (making an environment, exporting a tarball)."""


class Transport:
    """Speaks HTTP to one host; use it from any number of threads."""

    def __init__(self, access: HostAccess) -> None:
        import httpx2

        self.access = access
        self.url = access.url.rstrip("/")
        headers = {"Accept-Encoding": "identity"}
        if access.token:
            headers["Authorization"] = f"Bearer {access.token}"
        self._client = httpx2.Client(
            base_url=self.url,
            headers=headers,
            trust_env=False,
            follow_redirects=False,
            transport=_transport(self.url, access.must_prove),
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )
        self._transport_error = httpx2.TransportError

    def close(self) -> None:
        self._client.close()

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
            raise error_from_answer(status, data)
        return decode_reply(kind, data)

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
        import httpx2

        given = {key: value for key, value in (params or {}).items() if value is not None}
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = self._client.request(
                method,
                path,
                params=given,
                content=content,
                headers=headers,
                timeout=httpx2.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            )
        except self._transport_error as error:
            raise self.unreachable(error) from error
        return response.status_code, response.content

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
        import httpx2

        try:
            response = self._client.request(
                method,
                path,
                params=dict(params),
                content=content,
                headers={"Content-Type": media_type},
                timeout=httpx2.Timeout(timeout_seconds, connect=CONNECT_SECONDS),
            )
        except httpx2.ConnectError as error:
            raise self.unreachable(error) from error
        except self._transport_error as error:
            raise Unavailable(f"the host broke the connection off before all was sent ({error})") from error
        return response.status_code, response.content

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], idle_seconds: float
    ) -> Iterator["httpx2.Response"]:
        """Open an answer without reading its body. Errors of the transport pass through as they are.

        `idle_seconds` bounds the silence between two pieces of the body.
        """
        import httpx2

        timeout = httpx2.Timeout(idle_seconds, connect=CONNECT_SECONDS)
        with self._client.stream(
            "GET", path, params=dict(params), headers=dict(headers), timeout=timeout
        ) as response:
            yield response

    def unreachable(self, error: Exception) -> HostUnreachable:
        reason = str(error) or type(error).__name__
        return HostUnreachable(
            f"no host answers at {self.url} ({reason}); "
            "start one with `kohakuriver up` or name another with --host and --port"
        )


def _transport(url: str, trust: Trust | None) -> "httpx2.HTTPTransport":
    """Connections to the host, each proven first if there is something to prove it against."""
    import ssl

    import httpx2

    # Loading the certificate authorities takes longer than a whole request; plain HTTP needs none.
    tls = url.startswith("https:")
    context = httpx2.create_ssl_context(trust_env=False) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx2.HTTPTransport(verify=context, trust_env=False)
    if trust is not None:
        import httpcore2

        from kohakuriver.client.proven_connection import ProvenConnections

        # httpx2 has no parameter for this; the pool is the one that it makes itself, but for the connections.
        transport._pool = httpcore2.ConnectionPool(
            ssl_context=context,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=ProvenConnections(trust, tls=tls),
        )
    return transport


def decode_reply(kind: type[Value], data: bytes) -> Reply[Value]:
    """Read a body as JSON and as the record that it is; an empty body counts as `{}`."""
    try:
        raw = msgspec.json.decode(data or b"{}")
        return Reply(msgspec.convert(raw, type=kind), raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerNotUnderstood(
            f"the host's answer does not fit this version ({error}); is it a KohakuRiver host, and as new?"
        ) from error
