"""Calls to the host. After enrolment each is signed, and only an answer that the host signed is believed."""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote

import aiohttp

from kohakuriver.models.errors import InvalidInput, KohakuRiverError, Unauthenticated, Unavailable
from kohakuriver.wire.identity import LinkKeys
from kohakuriver.wire.messages import (
    EnrolAnswer,
    EnrolRequest,
    Heartbeat,
    HeartbeatAnswer,
    HostIntroduction,
    Registration,
    RegistrationAnswer,
    ReportsAnswer,
    TaskReport,
    decode,
    encode,
)
from kohakuriver.wire.signing import ANSWER_HEADER, sign, verify_answer

_MAX_ANSWER_BYTES = 4 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
_T = TypeVar("_T")


class HostRefused(KohakuRiverError):
    """The host answered that the request cannot be; trying the same again will not help soon."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class HostClient:
    """One host, by its URL; a name in it is looked up anew for each connection. Close it at the end.

    Errors: Unavailable when no answer comes, Unauthenticated when host and runner do not know each other,
    HostRefused for any other refusal.
    """

    def __init__(self, url: str, node: str) -> None:
        self._url = url.rstrip("/")
        self._node = node
        self._keys: LinkKeys | None = None
        # Proxy variables of the machine must never catch links between nodes.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(use_dns_cache=False, keepalive_timeout=60),
            timeout=_TIMEOUT,
            trust_env=False,
            auto_decompress=False,
        )

    def trust(self, keys: LinkKeys) -> None:
        """Use these keys from now on."""
        self._keys = keys

    async def close(self) -> None:
        await self._session.close()

    async def introduction(self) -> HostIntroduction:
        """Ask who the host is. Nothing vouches for the answer."""
        return decode(await self._plain("GET", "/api/enrol", b""), HostIntroduction)

    async def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        """Ask to be taken in. Nothing but `host_proof` vouches for the answer."""
        return decode(await self._plain("POST", "/api/enrol", encode(request)), EnrolAnswer)

    async def register(self, registration: Registration) -> RegistrationAnswer:
        return await self._signed("POST", "/api/register", registration, RegistrationAnswer)

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        path = f"/api/heartbeat/{quote(self._node)}"
        return await self._signed("PUT", path, beat, HeartbeatAnswer)

    async def send_reports(self, reports: list[TaskReport]) -> int:
        """Return how many of the reports, from the first, are in the host's store."""
        answer = await self._signed("POST", "/api/updates", reports, ReportsAnswer)
        return min(answer.committed, len(reports))

    async def _signed(self, method: str, path: str, message: object, kind: type[_T]) -> _T:
        keys = self._keys
        if keys is None:
            raise Unauthenticated("this runner is not enrolled with a host yet")
        body = encode(message)
        credential = sign(keys.node_to_host, self._node, method, path, body)
        status, headers, content = await self._exchange(method, path, body, {"Authorization": credential})
        if status < 300:
            verify_answer(headers.get(ANSWER_HEADER, ""), keys.host_to_node, credential, status, content)
        _raise_for(status, content)
        return self._decoded(content, kind)

    async def _plain(self, method: str, path: str, body: bytes) -> bytes:
        status, _, content = await self._exchange(method, path, body, {})
        _raise_for(status, content)
        return content

    async def _exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Content-Type": "application/json", **headers}
        try:
            async with self._session.request(
                method, self._url + path, data=body or None, headers=headers, allow_redirects=False
            ) as response:
                content = await response.content.read(_MAX_ANSWER_BYTES)
                while not response.content.at_eof() and len(content) < _MAX_ANSWER_BYTES:
                    content += await response.content.read(_MAX_ANSWER_BYTES)
                return response.status, response.headers, content
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            reason = str(error) or type(error).__name__
            raise Unavailable(f"the host at {self._url} does not answer: {reason}") from error

    def _decoded(self, content: bytes, kind: type[_T]) -> _T:
        try:
            return decode(content, kind)
        except InvalidInput as error:
            raise Unavailable(f"the host at {self._url} gave an answer that does not fit: {error}") from error


def _raise_for(status: int, content: bytes) -> None:
    if status < 300:
        return
    sentence = _detail(content) or f"the host answered with status {status}"
    if status == 401:
        raise Unauthenticated(sentence)
    if status >= 500:
        raise Unavailable(sentence)
    raise HostRefused(status, sentence)


def _detail(content: bytes) -> str:
    try:
        document = decode(content, dict)
    except InvalidInput:
        return ""
    return str(document.get("detail", ""))[:500]
