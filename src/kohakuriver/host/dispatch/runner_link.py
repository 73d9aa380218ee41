"""Signed requests to one runner. The host dials the address that the node's own registration came from.

A node says which port it listens on; where it is, the host has seen for itself. So a registration cannot
point the host at somebody else's door.
"""

from collections.abc import Mapping

import aiohttp
from yarl import URL

from kohakuriver.models.errors import Unavailable
from kohakuriver.wire.identity import LinkKeys
from kohakuriver.wire.node_url import announced_port
from kohakuriver.wire.signing import ANSWER_HEADER, sign, verify_answer


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


class RunnerLink:
    """One HTTP client for all runners; keeps connections open. Proxy settings of the machine do not apply."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """The session is made in the loop that uses it, at the first request."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, limit_per_host=8, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, trust_env=False)
        return self._session

    async def request(
        self,
        node: str,
        keys: LinkKeys,
        method: str,
        url: str,
        body: bytes = b"",
        *,
        seconds: float | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, body and headers; raises Unavailable if no genuine answer comes in time."""
        timeout = self._timeout if seconds is None else aiohttp.ClientTimeout(total=seconds)
        target = "/" + url.split("/", 3)[3]
        credential = sign(keys.host_to_node, node, method, target, body)
        headers = {"Authorization": credential, "Content-Type": "application/json"}
        try:
            async with self._open_session().request(
                method, as_signed(url), data=body, headers=headers, allow_redirects=False, timeout=timeout
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"the runner of node {node} does not answer: {error}") from error
        proof = answer.headers.get(ANSWER_HEADER, "")
        verify_answer(proof, keys.node_to_host, credential, answer.status, content)
        return answer.status, content, answer.headers
