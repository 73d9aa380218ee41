"""The workload endpoints: a table of routes for what runs on this node, beside the host's and not behind it.

Each route has a permission. `Permission.SANDBOX`: the path names a sandbox of this runner, the connection
comes from that sandbox's own address, and its client proves that it knows the sandbox's secret before the
route hears of it. Who is refused, and why, stands in the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
import structlog
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from kohakuriver.front_door import prove
from kohakuriver.models.errors import (
    Denied,
    InvalidInput,
    KohakuRiverError,
    NotFound,
    Unavailable,
)
from kohakuriver.repeated_news import RepeatedNews
from kohakuriver.runner.api.services import Permission
from kohakuriver.runner.api.workloads.peers import peer_address
from kohakuriver.runner.api.workloads.socket import WorkloadSocket
from kohakuriver.runner.tunnels.connection import NOT_GOOD
from kohakuriver.runner.tunnels.sandbox_tunnels import SandboxIdentity, SandboxTunnels
from kohakuriver.wire.messages import encode
from kohakuriver.wire.tunnel.frames import SUBPROTOCOL
from kohakuriver.wire.tunnel.proof import (
    Challenge,
    Confirmation,
    Prover,
    is_proof,
    new_nonce,
    proof,
    read_answer,
)

_PROOF_SECONDS = 5.0
_SHOWN = 100
_NOTHING = "there is nothing here for workloads"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkloadServices:
    """What the routes hand on to."""

    tunnels: SandboxTunnels


Handler = Callable[[WorkloadServices, SandboxIdentity, WorkloadSocket], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WorkloadRoute:
    """One WebSocket; there is no other way to make one. `offered` raises why there is none just now."""

    path: str
    handler: Handler
    offered: Callable[[WorkloadServices], None]
    permission: Permission = Permission.SANDBOX


async def _tunnel(services: WorkloadServices, sandbox: SandboxIdentity, socket: WorkloadSocket) -> None:
    await services.tunnels.serve(sandbox, socket)


def _tunnel_offered(services: WorkloadServices) -> None:
    services.tunnels.check_offered()


_ROUTES = (WorkloadRoute("/ws/tunnel/{container}", _tunnel, _tunnel_offered),)


def workload_routes() -> tuple[WorkloadRoute, ...]:
    """Every route for workloads."""
    return _ROUTES


class WorkloadEndpoints:
    """Pure ASGI."""

    def __init__(self, services: WorkloadServices) -> None:
        self._services = services
        self._routes = [(compile_path(route.path)[0], route) for route in _ROUTES]
        self._news = RepeatedNews()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._stream(scope, WorkloadSocket(receive, send))
        elif scope["type"] == "http":
            self._tell(scope, NotFound(_NOTHING))
            await _refuse_request(send)

    async def _stream(self, scope: Scope, socket: WorkloadSocket) -> None:
        try:
            route, sandbox = await self._claimed(scope)
        except KohakuRiverError as error:
            self._tell(scope, error)
            await socket.refuse(error)
            return
        try:
            await socket.accept(SUBPROTOCOL)
            await self._prove(socket, sandbox)
        except KohakuRiverError as error:
            self._tell(scope, error)
            await socket.close(NOT_GOOD)
            return
        prove(scope, sandbox.id)
        await route.handler(self._services, sandbox, socket)

    async def _claimed(self, scope: Scope) -> tuple[WorkloadRoute, SandboxIdentity]:
        """The sandbox that the path names, if it is the one at this address."""
        route, fields = self._find(scope["path"])
        route.offered(self._services)
        if SUBPROTOCOL not in scope["subprotocols"]:
            raise InvalidInput(f"this WebSocket speaks {SUBPROTOCOL} and nothing else")
        if not self._services.tunnels.is_ready:
            raise Unavailable("this runner has not seen its sandboxes yet; try again")
        sandbox = await self._services.tunnels.named_soon(fields["container"])
        if sandbox is None:
            raise Denied("no sandbox of this name has a secret here")
        if sandbox.address != peer_address(scope):
            raise Denied("that sandbox has another address")
        return route, sandbox

    def _find(self, path: str) -> tuple[WorkloadRoute, Mapping[str, str]]:
        for pattern, route in self._routes:
            if (match := pattern.match(path)) is not None:
                return route, match.groupdict()
        raise NotFound(_NOTHING)

    async def _prove(self, socket: WorkloadSocket, sandbox: SandboxIdentity) -> None:
        """Both ends prove that they know the secret; nobody says it (`wire.tunnel.proof`)."""
        try:
            async with asyncio.timeout(_PROOF_SECONDS):
                await _challenge(socket, sandbox)
        except TimeoutError as error:
            raise Denied("no proof came in time") from error
        if self._services.tunnels.named(sandbox.name) is not sandbox:
            raise Denied("the sandbox has another address or secret by now, or is gone")

    def _tell(self, scope: Scope, error: KohakuRiverError) -> None:
        """Once in a while for each address and reason; what a workload writes is cut."""
        if isinstance(error, Unavailable):
            return
        address, reason = peer_address(scope), str(error)
        if self._news.due((address, reason)):
            earlier = self._news.take_kept_back((address, reason))
            path = scope["path"][:_SHOWN]
            _log.warning("workload_refused", address=address, path=path, reason=reason, more_before=earlier)


async def _challenge(socket: WorkloadSocket, sandbox: SandboxIdentity) -> None:
    nonce = new_nonce()
    await _say(socket, Challenge(nonce))
    text = await socket.receive()
    if text is None:
        raise Unavailable("it left before it had proven anything")
    if not isinstance(text, str):
        raise Denied("what came is no proof")
    answer = read_answer(text)
    if not is_proof(answer.proof, proof(sandbox.secret, Prover.CLIENT, sandbox.name, nonce, answer.nonce)):
        raise Denied("the proof is not that of this sandbox's secret")
    confirmed = proof(sandbox.secret, Prover.RUNNER, sandbox.name, nonce, answer.nonce)
    await _say(socket, Confirmation(confirmed))


async def _say(socket: WorkloadSocket, message: msgspec.Struct) -> None:
    await socket.send(encode(message).decode())


async def _refuse_request(send: Send) -> None:
    """There are no other routes than WebSockets so far; more is not heard from who asks for one."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    body = encode({"detail": _NOTHING})
    await send({"type": "http.response.body", "body": body})
