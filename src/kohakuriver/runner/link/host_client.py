"""Calls to the host. After enrolment each is sealed, and only an answer that the host proves is read.

An answer is judged by its headers, before its body; nothing is ever unpacked. Refusals are proven too, but
for the one of a host that does not know this runner (401).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import quote

import aiohttp

from kohakuriver.models.errors import (
    HostRefused,
    InvalidInput,
    Unauthenticated,
    Unavailable,
)
from kohakuriver.wire.messages import (
    PROTOCOL_VERSION,
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
from kohakuriver.wire.registry_credentials import RegistryCredential, RegistryQuestion
from kohakuriver.wire.trust.identity import LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import MOST_TRIES, Caller, ProvenAnswer, SealedCall, unproven
from kohakuriver.wire.trust.signing import ANSWER_HEADER, other_protocol

_MAX_ANSWER_BYTES = 4 << 20
_MAX_PLAIN_BYTES = 64 << 10
"""Of an answer that nothing vouches for."""
_TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
_T = TypeVar("_T")


class HostClient:
    """One host, by its URL; a name in it is looked up anew for each connection. Close it at the end.

    Errors: Unavailable when no answer comes, Unauthenticated when host and runner do not know each other,
    HostRefused for any other refusal.
    """

    def __init__(self, url: str, node: str) -> None:
        self._url = url.rstrip("/")
        self._node = node
        self._keys: LinkKeys | None = None
        self._caller = Caller(Side.NODE)
        # Proxy variables of the machine must never catch links between nodes.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(use_dns_cache=False, keepalive_timeout=60),
            timeout=_TIMEOUT,
            trust_env=False,
            auto_decompress=False,
            # What a stranger at the host's address says must not be told to the host later.
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def trust(self, keys: LinkKeys) -> None:
        """Use these keys from now on."""
        self._keys = keys

    async def close(self) -> None:
        await self._session.close()

    async def introduction(self) -> HostIntroduction:
        """Ask who the host is. Nothing vouches for the answer.

        Raises HostRefused for a host of another protocol: there is no speaking with it, and no older way.
        """
        shown = self._introduced(await self._plain("GET", "/api/enrol", b""), HostIntroduction)
        if shown.protocol_version != PROTOCOL_VERSION:
            who = f"the host at {self._url}"
            raise HostRefused(409, other_protocol(who, shown.protocol_version, "the host"))
        return shown

    async def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        """Ask to be taken in. Nothing but `host_proof` vouches for the answer."""
        return self._introduced(await self._plain("POST", "/api/enrol", encode(request)), EnrolAnswer)

    async def register(self, registration: Registration) -> RegistrationAnswer:
        return await self._sealed("POST", "/api/register", registration, RegistrationAnswer)

    async def heartbeat(self, beat: Heartbeat) -> HeartbeatAnswer:
        path = f"/api/heartbeat/{quote(self._node)}"
        return await self._sealed("PUT", path, beat, HeartbeatAnswer)

    async def send_reports(self, reports: list[TaskReport]) -> int:
        """Return how many of the reports, from the first, are in the host's store."""
        answer = await self._sealed("POST", "/api/updates", reports, ReportsAnswer)
        return min(answer.committed, len(reports))

    async def registry_credential(self, registry: str) -> RegistryCredential:
        """Ask who the cluster is at the registry of an image that a task of this node starts with."""
        question = RegistryQuestion(registry=registry)
        return await self._sealed("POST", "/api/registry-credential", question, RegistryCredential)

    async def _sealed(self, method: str, path: str, message: object, kind: type[_T]) -> _T:
        keys = self._keys
        if keys is None:
            raise Unauthenticated("this runner is not enrolled with a host yet")
        body = encode(message)
        for _ in range(MOST_TRIES):
            call = self._caller.call(self._node, keys, method, path, body)
            async with self._ask(method, path, call.content, call.credential) as response:
                answer = await self._proven(call, keys, response)
                if self._caller.must_call_again(call, answer):
                    continue
                content = await self._content(call, keys, answer, response)
            if answer.status == Unauthenticated.http_status:
                raise Unavailable(_detail(content) or "the host did not take this call")
            _raise_for(answer.status, content)
            return self._decoded(content, kind)
        raise Unavailable("the host begins anew again and again")

    async def _proven(
        self, call: SealedCall, keys: LinkKeys, response: aiohttp.ClientResponse
    ) -> ProvenAnswer:
        """Judge an answer by its headers. Of one that is not proven, a short refusal is shown at most."""
        if response.status == Unauthenticated.http_status and ANSWER_HEADER not in response.headers:
            sentence = _detail(await _up_to(response, _MAX_PLAIN_BYTES))
            raise Unauthenticated(sentence or "the host does not know this runner")
        try:
            return self._caller.prove(call, keys, response.status, response.headers, _MAX_ANSWER_BYTES)
        except Unauthenticated as error:
            response.close()
            raise unproven(f"the host at {self._url}", response.status, error) from error
        except Unavailable:
            response.close()
            raise

    async def _content(
        self, call: SealedCall, keys: LinkKeys, answer: ProvenAnswer, response: aiohttp.ClientResponse
    ) -> bytes:
        try:
            sealed = await answer.body.read(response.content.iter_any())
            return self._caller.open(call, answer, sealed)
        except Unauthenticated as error:
            raise Unavailable(f"the answer of the host was changed on its way: {error}") from error

    async def _plain(self, method: str, path: str, body: bytes) -> bytes:
        async with self._ask(method, path, body) as response:
            content = await _up_to(response, _MAX_PLAIN_BYTES)
        if response.status >= 300 and not _detail(content):
            raise Unavailable(f"{self._no_host()} (HTTP status {response.status})")
        _raise_for(response.status, content)
        return content

    def _no_host(self) -> str:
        return f"what answers at {self._url} is no KohakuRiver host; look at HOST_ADDRESS and HOST_PORT"

    def _introduced(self, content: bytes, kind: type[_T]) -> _T:
        """Read what is said before anybody is known: it may be anybody's."""
        try:
            return decode(content, kind)
        except InvalidInput as error:
            raise Unavailable(self._no_host()) from error

    @asynccontextmanager
    async def _ask(
        self, method: str, path: str, body: bytes, credential: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if credential is not None:
            headers["Authorization"] = credential
        try:
            async with self._session.request(
                method, self._url + path, data=body or None, headers=headers, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            reason = str(error) or type(error).__name__
            raise Unavailable(f"the host at {self._url} does not answer: {reason}") from error

    def _decoded(self, content: bytes, kind: type[_T]) -> _T:
        try:
            return decode(content, kind)
        except InvalidInput as error:
            raise Unavailable(f"the host at {self._url} gave an answer that does not fit: {error}") from error


async def _up_to(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read what may be there, and no more."""
    content = b""
    while len(content) < limit and (chunk := await response.content.read(limit - len(content))):
        content += chunk
    return content


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
