"""Which routes leave an audit line, and the one place that writes it.

Each route that changes something, and each WebSocket, says in its table under which action it is written, or
why it is not; an app in which one says neither is not built. Whatever is refused (401, 403, 429) is written,
on every route. A handler adds what only it knows with `Call.trail`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.types import Scope

from kohakuriver.host.api.http.request_figures import UNKNOWN_ROUTE
from kohakuriver.host.audit import NOBODY, AuditEvent, AuditLog, Outcome
from kohakuriver.host.auth import Actor

READING = frozenset({"GET", "HEAD", "OPTIONS"})
WEBSOCKET = "WS"
_REFUSED = frozenset({401, 403, 429})
_TRAIL_KEY = "kohakuriver.audit_trail"


@dataclass(frozen=True, slots=True)
class OnlyNoted:
    """Written if the handler noted something; for calls of which few are of interest."""

    action: str


@dataclass(frozen=True, slots=True)
class Unaudited:
    """Not written, unless it is refused; `why` is for the reader."""

    why: str


Rule = str | OnlyNoted | Unaudited
"""A text is the action under which each call is written."""

Rules = Mapping[tuple[str, str], Rule]
"""By method (`WS` for WebSockets) and path, as declared."""


class Trail:
    """What is known of one request, filled while it is served.

    `ordinary`: that it is refused is part of a protocol, and nothing to look into.
    """

    def __init__(self) -> None:
        self.actor: Actor | None = None
        self.reason = ""
        self.ordinary = False
        self.noted = False
        self.object = ""
        self.detail = ""

    def note(self, thing: str = "", detail: str = "") -> None:
        """Say what is acted on (else the parameters of the path) and how; never a secret or a value."""
        self.noted = True
        self.object = thing or self.object
        self.detail = detail or self.detail


def trail_of(scope: Scope) -> Trail:
    """The request's trail; one that nobody reads where the app is not the whole one."""
    trail: Trail | None = scope.get(_TRAIL_KEY)
    if trail is None:
        trail = scope[_TRAIL_KEY] = Trail()
    return trail


def check_audited(app: FastAPI, rules: Rules) -> None:
    """Raise RuntimeError for a route that changes something, or a WebSocket, without a rule."""
    for route in app.routes:
        if isinstance(route, APIWebSocketRoute):
            methods = {WEBSOCKET}
        else:
            methods = (set(route.methods or ()) if isinstance(route, APIRoute) else set()) - READING
        for method in methods:
            path = getattr(route, "path", "")
            if not rules.get((method, path)):
                raise RuntimeError(
                    f"the route {method} {path} says neither its audit action nor why it has none"
                )


class AuditTrails:
    """Begins the trail of each request, and writes what is to be written once it is known how it ended."""

    def __init__(self, audit: AuditLog, rules: Rules) -> None:
        self._audit = audit
        self._rules = rules

    def begin(self, scope: Scope) -> None:
        scope[_TRAIL_KEY] = Trail()

    def settle(self, scope: Scope, status: int) -> None:
        """Write the request's line, if it is one that is written."""
        trail: Trail = scope[_TRAIL_KEY]
        method = WEBSOCKET if scope["type"] == "websocket" else scope["method"]
        path = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        rule = self._rules.get((method, path))
        outcome = _outcome(status)
        if trail.ordinary or (outcome is not Outcome.REFUSED and not _is_written(rule, outcome, trail)):
            return
        actor = trail.actor
        client = scope.get("client")
        event = AuditEvent(
            action=_action(rule) or f"{method if path != UNKNOWN_ROUTE else 'request'} {path}",
            actor=actor.name if actor else NOBODY,
            token_id=actor.token_id if actor else "",
            object=trail.object or " ".join(map(str, scope.get("path_params", {}).values())),
            detail=trail.detail,
            address=client[0] if client else "",
            reason="" if outcome is Outcome.DONE else trail.reason or f"status {status}",
        )
        self._audit.record(event, outcome)


def _outcome(status: int) -> Outcome:
    if status < 400:
        return Outcome.DONE
    return Outcome.REFUSED if status in _REFUSED else Outcome.FAILED


def _is_written(rule: Rule | None, outcome: Outcome, trail: Trail) -> bool:
    if rule is None or isinstance(rule, Unaudited):
        return False
    return trail.noted or not isinstance(rule, OnlyNoted)


def _action(rule: Rule | None) -> str:
    return rule if isinstance(rule, str) else rule.action if isinstance(rule, OnlyNoted) else ""
