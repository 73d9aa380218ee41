"""Permission of every route, as a dependency that stands on the route itself.

A route takes its `Call` from `Requires(role)` (a user's token) or from `RunnerOnly(kind)` (a signed request
of an enrolled node), or it says `Requires(Role.ANONY)`. `declared_permissions` reads them back,
and refuses an app in which a route has none.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection

from kohakuriver.front_door import prove
from kohakuriver.host.api.http.auditing import Trail, trail_of
from kohakuriver.host.api.http.body_reading import MAX_BODY_BYTES
from kohakuriver.host.api.http.known_names import refuse_unknown_body, refuse_unknown_query
from kohakuriver.host.api.parts import ApiParts
from kohakuriver.host.auth import Actor
from kohakuriver.host.auth.rights import Close
from kohakuriver.host.control import ClusterControl
from kohakuriver.models.enums import Role
from kohakuriver.models.errors import Denied, TooLarge, Unauthenticated
from kohakuriver.wire.messages import decode
from kohakuriver.wire.trust import signing
from kohakuriver.wire.trust.identity import Side
from kohakuriver.wire.trust.sealed_calls import SEAL_BYTES, Received, receive_call

Message = TypeVar("Message")

RUNNER = "runner"
CALL_KEY = "kohakuriver.runner_call"
"""Where a runner's proven call stands in the scope: its answer is sealed and proven, whatever it is."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Call:
    """One permitted request of a user; `credential` is the header that it came with.

    `trail`: what the audit line of the request is to say.
    """

    actor: Actor
    parts: ApiParts
    credential: str | None = field(default=None, repr=False)
    trail: Trail = field(default_factory=Trail, compare=False, repr=False)

    @property
    def control(self) -> ClusterControl:
        return self.parts.control

    def held(self, close: Close) -> AbstractContextManager[None]:
        """Have what stays open closed once this request would be answered otherwise."""
        return self.parts.auth.rights.held(self._refusal, close)

    async def refused(self, still: Callable[[], bool] = lambda: True) -> str:
        """Wait until this request would be answered otherwise; returns why. For what stays open.

        `still`: see `AuthService.refusal`.
        """
        return await self.parts.auth.rights.lost(partial(self._refusal, still))

    def _refusal(self, still: Callable[[], bool] = lambda: True) -> str | None:
        return self.parts.auth.refusal(self.credential, self.actor, still)


@dataclass(frozen=True, slots=True)
class RunnerCall(Generic[Message]):
    """One verified request of the runner of `node`; `address` is where it came from."""

    node: str
    message: Message
    address: str
    parts: ApiParts

    @property
    def control(self) -> ClusterControl:
        return self.parts.control


class Requires:
    """Lets in whoever has at least this role; `Role.ANONY` lets in everybody.

    Everything is decided by headers, before a body is read. `any_name`: also for whoever calls this host by a
    name that is not its own, for what no page of another site can make use of.
    """

    def __init__(self, role: Role, *, any_name: bool = False) -> None:
        self.role = role
        self.any_name = any_name

    @property
    def permission(self) -> str:
        return self.role.name.lower()

    async def __call__(self, connection: HTTPConnection) -> Call:
        parts: ApiParts = connection.app.state.parts
        trail = trail_of(connection.scope)
        credential = connection.headers.get("authorization")
        if self.role is Role.ANONY:
            self._check_page(connection, parts)
            refuse_unknown_query(connection)
            return Call(Actor("anonymous", Role.ANONY), parts, trail=trail)
        if credential is None or not parts.auth.enabled:
            self._check_page(connection, parts)
        actor = trail.actor = parts.auth.authenticate(credential)
        prove(connection.scope, actor.name)
        parts.auth.uses.note(actor.token_id)
        if actor.role < self.role:
            raise Denied(
                f"this needs the role {self.permission}; you are {actor.name} with the role "
                f"{actor.role.name.lower()}"
            )
        refuse_unknown_query(connection)
        refuse_unknown_body(connection)
        return Call(actor, parts, credential, trail)

    def _check_page(self, connection: HTTPConnection, parts: ApiParts) -> None:
        """For who sends no token that is looked at: it may be a browser, led here by a page of another site.

        No page can know a token, so with one neither is needed, and a proxy may call this host as it likes.
        """
        if not self.any_name:
            parts.own_names.check(connection)
        _refuse_foreign_origin(connection)


class RunnerOnly:
    """Lets in calls of enrolled nodes: proven by their headers before the body is read, and taken once."""

    permission = RUNNER

    def __init__(self, kind: Any, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.kind = kind
        self._max_bytes = max_bytes

    async def __call__(self, request: Request) -> RunnerCall[Any]:
        """Give the call; it counts for its node until it is answered."""
        parts: ApiParts = request.app.state.parts
        call = await _proven_call(request, parts)
        request.scope[CALL_KEY] = call
        node = call.credential.node
        call.take(parts.runner_calls.of(node), time.monotonic())
        prove(request.scope, f"node {node}")
        length = call.credential.body.length
        if length > self._max_bytes + SEAL_BYTES:
            raise TooLarge(f"a call may hold {self._max_bytes} bytes at most; send less at once")
        address = request.client.host if request.client else ""
        parts.node_shares.hold(request.scope, node, length)
        content = await call.credential.body.read(request.stream())
        return RunnerCall(node, decode(call.open(content), self.kind), address, parts)


async def _proven_call(request: Request, parts: ApiParts) -> Received:
    try:
        credential = signing.read_credential(request.headers.get("authorization", ""))
    except signing.OtherProtocol as error:
        address = request.client.host if request.client else "?"
        parts.control.runners.other_protocol_heard(error.node, error.version, address)
        raise
    keys = parts.control.runners.link_keys(credential.node)
    if keys is None:
        raise Unauthenticated(f"no node named {credential.node} is enrolled here; enrol it first")
    return receive_call(Side.HOST, keys, credential, request.method, target_of(request))


AnyoneCall = Annotated[Call, Depends(Requires(Role.ANONY))]
AnyNameCall = Annotated[Call, Depends(Requires(Role.ANONY, any_name=True))]
"""Health for load balancers, which call by any address, and enrolment for runners, who call by whichever name
their machine has for this host: neither shows or changes anything that a page of another site could use.
"""
ViewerCall = Annotated[Call, Depends(Requires(Role.VIEWER))]
UserCall = Annotated[Call, Depends(Requires(Role.USER))]
OperatorCall = Annotated[Call, Depends(Requires(Role.OPERATOR))]
AdminCall = Annotated[Call, Depends(Requires(Role.ADMIN))]


def target_of(request: Request) -> str:
    """The path with its query as it was sent, which is what a runner signs."""
    raw_path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    # Some servers leave the query in the raw path, others cut it off.
    path = raw_path.split(b"?", 1)[0].decode("latin-1")
    query: str = request.scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


def _refuse_foreign_origin(connection: HTTPConnection) -> None:
    """A page of another site must not use a browser's place in the network to act here."""
    if connection.scope.get("method") in _SAFE_METHODS:
        return
    origin = connection.headers.get("origin")
    if origin is None:
        return
    if not _same_origin(origin, connection.headers.get("host", "")):
        raise Denied("requests from pages of other sites are refused")


def _same_origin(origin: str, host: str) -> bool:
    try:
        netloc = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(netloc) and netloc.lower() == host.lower()


def declared_permissions(app: FastAPI) -> list[tuple[str, str, str]]:
    """List (method, path, permission) of every route, WebSockets with the method `WS`.

    The permission is a role's name, `anony` for everybody, or `runner`. Raises RuntimeError for a route
    without one.
    """
    found = []
    for route in app.routes:
        path = getattr(route, "path", repr(route))
        # Other kinds of routes (mounts, plain ones) have nowhere to declare it.
        permission = (
            permission_of(route.dependant) if isinstance(route, (APIRoute, APIWebSocketRoute)) else None
        )
        if permission is None:
            raise RuntimeError(f"the route {path} declares no permission")
        methods = sorted(route.methods or ()) if isinstance(route, APIRoute) else ["WS"]
        found += [(method, path, permission) for method in methods]
    return found


def permission_of(dependant: Dependant) -> str | None:
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, (Requires, RunnerOnly)):
            return dependency.call.permission
    return None
