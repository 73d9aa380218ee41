"""The way of one fake runner to its host: enrolment with a join token, and sealed calls."""

import asyncio
import json

from bench.lean_http import LeanClient, connect, request_bytes
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.wire.messages import EnrolRequest, encode
from kohakuriver.wire.trust.call_windows import CallWindow
from kohakuriver.wire.trust.enrolment import JoinToken, join_proof
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side
from kohakuriver.wire.trust.sealed_calls import MOST_TRIES, Caller

_TIMEOUT_SECONDS = 20.0
_MAX_ANSWER_BYTES = 1 << 20


class HostUnreachable(Exception):
    """The host does not answer, or not with what was asked for."""


class FakeLink:
    """One node's connection to the host, from an address of its own; one request under way at a time."""

    def __init__(self, name: str, host_port: int, address: str) -> None:
        self.name = name
        self.cluster_id = ""
        self._identity = Identity.generate()
        self._keys: LinkKeys | None = None
        self._caller = Caller(Side.NODE)
        self.window = CallWindow()
        self._host_port = host_port
        self._address = address
        self._client: LeanClient | None = None
        self._turn = asyncio.Lock()

    @property
    def keys(self) -> LinkKeys:
        assert self._keys is not None
        return self._keys

    async def enrol(self, admin_token: str) -> None:
        """Join as an operator would have it join: with a token of its own."""
        admin = {"Authorization": f"Bearer {admin_token}"}
        made = json.loads(await self._ask("POST", "/api/nodes/join-tokens", b"{}", admin))
        host = json.loads(await self._ask("GET", "/api/enrol", b"", {}))
        key, own = host["host_public_key"], self._identity.public_key
        token = JoinToken.parse(made["token"])
        request = EnrolRequest(
            hostname=self.name,
            public_key=own,
            join_token_id=token.token_id,
            join_proof=join_proof(token.secret, self.name, own, key),
        )
        answer = json.loads(await self._ask("POST", "/api/enrol", encode(request), {}))
        assert answer["state"] == "approved", answer
        self.cluster_id = answer["cluster_id"]
        self._keys = self._identity.link_keys(key, Side.NODE)

    async def send(self, method: str, path: str, body: bytes) -> bytes:
        """Make a sealed call; raises HostAway unless the host did what it asks."""
        for _ in range(MOST_TRIES):
            call = self._caller.call(self.name, self.keys, method, path, body)
            status, headers, content = await self._exchange(
                method, path, call.content, {"Authorization": call.credential}
            )
            try:
                answer = self._caller.prove(call, self.keys, status, headers, _MAX_ANSWER_BYTES)
                if self._caller.must_call_again(call, answer):
                    continue
                opened = self._caller.open(call, answer, content)
            except KohakuRiverError as error:
                raise HostUnreachable(f"{method} {path}: {status} {error}") from error
            if status != 200:
                raise HostUnreachable(f"{method} {path}: {status} {opened[:300]!r}")
            return opened
        raise HostUnreachable(f"{method} {path}: the host begins anew again and again")

    async def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        status, _, content = await self._exchange(method, path, body, headers)
        if status != 200:
            raise HostUnreachable(f"{method} {path}: {status} {content[:300]!r}")
        return content

    async def _exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        request = request_bytes(method, path, headers, body)
        async with self._turn:
            try:
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    if self._client is None or not self._client.is_open:
                        self._client = await connect(self._host_port, local_address=self._address)
                    status = await self._client.ask(request)
            except OSError as error:
                if self._client is not None:
                    self._client.close()
                raise HostUnreachable(f"{method} {path}: {error!r}") from error
            return int(status), self._client.fields, self._client.body
