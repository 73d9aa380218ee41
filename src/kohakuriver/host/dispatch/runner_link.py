"""Sealed calls to one runner. The host dials the address that the node's own registration came from.

A node says which port it listens on; where it is, the host has seen for itself. So a registration cannot
point the host at somebody else's machine.

An answer is read only once its headers have proven whose it is and how large: what another gives, and what
is larger than the call may return, is never read, and nothing is ever unpacked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from kohakuriver.models.errors import Unauthenticated, Unavailable
from kohakuriver.wire.node_url import announced_port
from kohakuriver.wire.trust.identity import LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import MOST_TRIES, Caller, ProvenAnswer, SealedCall, unproven

MAX_ANSWER_BYTES = 4 << 20
"""What a call may return where it does not say otherwise."""


_CONNECT_SECONDS = 5.0
"""A packet filter that drops what comes must not hold up whoever wants to know whether a node is there."""


class Unreachable(Unavailable):
    """Nobody answers where the node's registration came from; `reason` is why, in a few words."""

    def __init__(self, node: str, error: BaseException) -> None:
        self.reason = _in_few_words(error)
        super().__init__(f"the runner of node {node} does not answer: {self.reason}")


def _in_few_words(error: BaseException) -> str:
    """What the client says names addresses and options that say nothing to users."""
    if isinstance(error, TimeoutError):
        return "no answer came in time"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(cause, "strerror", None) or str(error) or type(error).__name__


def as_signed(url: str) -> URL:
    """The address spelled as it stands: the client would spell it anew, and the signature covers it."""
    return URL(url, encoded=True)


def dial_url(address: str, announced_url: str) -> str:
    """Join the address that was seen with the port that was announced; raises Unavailable for none."""
    try:
        port = announced_port(announced_url)
    except ValueError as error:
        raise Unavailable(f"the node announced an address that cannot be: {error}") from error
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a call may take, and how large its answer may be."""

    seconds: float
    max_bytes: int = MAX_ANSWER_BYTES


class RunnerLink:
    """One HTTP client for all runners; keeps connections open. Proxy settings of the machine do not apply."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None
        self._caller = Caller(Side.HOST)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """The session is made in the loop that uses it, at the first request."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, limit_per_host=8, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def request(
        self,
        node: str,
        keys: LinkKeys,
        method: str,
        url: str,
        body: bytes = b"",
        bounds: Bounds | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, body and the proven headers (`wire.trust.signing.PROVEN_HEADERS`).

        Raises Unavailable if no genuine answer within the bounds comes. Refusals of the runner
        are answers, and proven like them: 413 says that it does not take as much in one call.
        """
        bounds = bounds or Bounds(self._timeout_seconds)
        timeout = aiohttp.ClientTimeout(total=bounds.seconds, sock_connect=_CONNECT_SECONDS)
        target = "/" + url.split("/", 3)[3]
        for _ in range(MOST_TRIES):
            call = self._caller.call(node, keys, method, target, body)
            headers = {
                "Authorization": call.credential,
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
            }
            try:
                async with self._open_session().request(
                    method,
                    as_signed(url),
                    data=call.content,
                    headers=headers,
                    allow_redirects=False,
                    timeout=timeout,
                ) as response:
                    answer = self._proven(call, keys, response, bounds.max_bytes)
                    if self._caller.must_call_again(call, answer):
                        continue
                    sealed = await answer.body.read(response.content.iter_any())
                    content = self._caller.open(call, answer, sealed)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise Unreachable(node, error) from error
            except Unauthenticated as error:
                raise Unavailable(f"the answer of node {node} was changed on its way: {error}") from error
            return answer.status, content, answer.headers
        raise Unavailable(f"the runner of node {node} begins anew again and again")

    def _proven(
        self, call: SealedCall, keys: LinkKeys, response: aiohttp.ClientResponse, max_bytes: int
    ) -> ProvenAnswer:
        try:
            return self._caller.prove(call, keys, response.status, response.headers, max_bytes)
        except Unauthenticated as error:
            response.close()
            raise unproven(f"the runner of node {call.node}", response.status, error) from error
        except Unavailable as error:
            response.close()
            raise Unavailable(f"node {call.node}: {error}") from error
