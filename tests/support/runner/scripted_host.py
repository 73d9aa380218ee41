"""A host that a runner's link talks to, over a real socket on loopback; each answer can be bent."""

import socket
import time
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from kohakuriver.models.enums import EnrolState
from kohakuriver.wire.messages import (
    PROTOCOL_VERSION,
    AttemptState,
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
from kohakuriver.wire.trust.call_windows import CallWindow
from kohakuriver.wire.trust.enrolment import JoinToken, approval_proof, host_proof, join_proof, proofs_equal
from kohakuriver.wire.trust.identity import Identity, Side
from kohakuriver.wire.trust.sealed_calls import NotTaken, Received, receive_call
from kohakuriver.wire.trust.signing import ANSWER_HEADER, read_credential

_CALL = web.RequestKey("call", Received)


@dataclass
class ScriptedHost:
    """`approved`: names that are let in. `status`: answered to everything while set. `unsigned`: no proof."""

    identity: Identity = field(default_factory=Identity.generate)
    cluster_id: str = "c1"
    approved: set[str] = field(default_factory=set)
    tokens: dict[str, JoinToken] = field(default_factory=dict)
    status: int | None = None
    unsigned: bool = False
    known: bool = True
    unwanted: list[AttemptState] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)
    beats: list[Heartbeat] = field(default_factory=list)
    reports: list[TaskReport] = field(default_factory=list)
    enrolments: list[EnrolRequest] = field(default_factory=list)
    shown_key: str | None = None
    lies_about_proof: bool = False
    lies_about_approval: bool = False
    keys_of: dict[str, str] = field(default_factory=dict)
    window: CallWindow = field(default_factory=CallWindow)
    played_again: int = 0
    protocol_version: int = PROTOCOL_VERSION

    @property
    def public_key(self) -> str:
        return self.shown_key or self.identity.public_key

    def token(self) -> JoinToken:
        token = JoinToken.generate(self.identity.fingerprint)
        self.tokens[token.token_id] = token
        return token

    async def enrol_get(self, _request: web.Request) -> web.Response:
        return self._plain(
            HostIntroduction(
                cluster_id=self.cluster_id,
                host_public_key=self.public_key,
                protocol_version=self.protocol_version,
            )
        )

    async def enrol_post(self, request: web.Request) -> web.Response:
        asked = decode(await request.read(), EnrolRequest)
        self.enrolments.append(asked)
        ours = asked.hostname in self.approved or self.keys_of.get(asked.hostname) == asked.public_key
        proof, state = None, EnrolState.APPROVED if ours else EnrolState.PENDING
        if asked.join_token_id is not None:
            token = self.tokens.get(asked.join_token_id)
            keys = (asked.hostname, asked.public_key, self.public_key)
            if token is None or not proofs_equal(asked.join_proof, join_proof(token.secret, *keys)):
                return web.Response(status=403, body=encode({"detail": "that token is not valid here"}))
            proof = "lie" if self.lies_about_proof else host_proof(token.secret, *keys)
            state = EnrolState.APPROVED
        if state is EnrolState.APPROVED:
            self.keys_of[asked.hostname] = asked.public_key
        key = Identity.generate() if self.lies_about_approval else self.identity
        approval = approval_proof(key, asked.public_key, Side.HOST, asked.hostname, self.cluster_id)
        return self._plain(
            EnrolAnswer(
                state=state,
                cluster_id=self.cluster_id,
                host_public_key=self.public_key,
                fingerprint="",
                host_proof=proof,
                approval_proof=approval if state == "approved" else None,
            )
        )

    async def register(self, request: web.Request) -> web.Response:
        self.registrations.append(decode(await self._verified(request), Registration))
        answer = RegistrationAnswer(
            cluster_id=self.cluster_id, shared_storage="none", faults=["a fault"], notices=["a notice"]
        )
        return await self._signed(request, answer)

    async def heartbeat(self, request: web.Request) -> web.Response:
        self.beats.append(decode(await self._verified(request), Heartbeat))
        return await self._signed(request, HeartbeatAnswer(known=self.known, end_attempts=self.unwanted))

    async def updates(self, request: web.Request) -> web.Response:
        reports = decode(await self._verified(request), list[TaskReport])
        self.reports.extend(reports)
        return await self._signed(request, ReportsAnswer(committed=len(reports)))

    def _plain(self, message: object) -> web.Response:
        return web.Response(body=encode(message), content_type="application/json")

    async def _verified(self, request: web.Request) -> bytes:
        header = request.headers.get("Authorization", "")
        credential = read_credential(header)
        if credential.node not in self.keys_of:
            raise web.HTTPUnauthorized(text='{"detail": "this host does not know you"}')
        keys = self.identity.link_keys(self.keys_of[credential.node], Side.HOST)
        call = receive_call(Side.HOST, keys, credential, request.method, request.path_qs)
        request[_CALL] = call
        try:
            call.take(self.window, time.monotonic())
        except NotTaken as error:
            self.played_again += not error.headers
            raise _Answered(self._sealed(request, b"", error.http_status, error.headers)) from error
        body = call.open(await credential.body.read(request.content.iter_any()))
        if self.status is not None:
            raise _Answered(self._sealed(request, b'{"detail": "as scripted"}', self.status))
        return body

    async def _signed(self, request: web.Request, message: object) -> web.Response:
        return self._sealed(request, encode(message))

    def _sealed(
        self, request: web.Request, body: bytes, status: int = 200, more: Mapping[str, str] | None = None
    ) -> web.Response:
        headers = {"Content-Type": "application/json", **(more or {})}
        content, proof = request[_CALL].seal(status, body, headers)
        if not self.unsigned:
            headers[ANSWER_HEADER] = proof
        return web.Response(status=status, body=content, headers=headers)


class _Answered(Exception):
    """A call is answered before its route would."""

    def __init__(self, response: web.Response) -> None:
        self.response = response


@web.middleware
async def _answer_early(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answered: web.StreamResponse = await handler(request)
    except _Answered as early:
        return early.response
    return answered


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(host: ScriptedHost, port: int):  # type: ignore[no-untyped-def]
    """Serve on loopback; leaving the context is the host's disappearance."""
    app = web.Application(middlewares=[_answer_early])
    app.router.add_get("/api/enrol", host.enrol_get)
    app.router.add_post("/api/enrol", host.enrol_post)
    app.router.add_post("/api/register", host.register)
    app.router.add_put("/api/heartbeat/{hostname}", host.heartbeat)
    app.router.add_post("/api/updates", host.updates)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    try:
        yield
    finally:
        await runner.cleanup()
