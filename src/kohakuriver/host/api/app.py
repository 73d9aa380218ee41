"""Builds the host's interface from the tables of endpoints. The composition root makes the parts."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from kohakuriver import __version__
from kohakuriver.host.api import auth, not_here, retention, system
from kohakuriver.host.api.environments import registries
from kohakuriver.host.api.environments import routes as docker
from kohakuriver.host.api.events import routes as events
from kohakuriver.host.api.http.answers import Endpoint
from kohakuriver.host.api.http.auditing import WEBSOCKET, AuditTrails, Rules, check_audited
from kohakuriver.host.api.http.direct_routes import DirectRoute
from kohakuriver.host.api.http.errors import FaultLog, install_error_handlers
from kohakuriver.host.api.http.open_requests import OpenRequests
from kohakuriver.host.api.http.request_watch import WatchRequests
from kohakuriver.host.api.http.shares import HELD_KEY
from kohakuriver.host.api.nodes import routes as nodes
from kohakuriver.host.api.nodes import runners
from kohakuriver.host.api.openapi import describe
from kohakuriver.host.api.parts import ApiParts
from kohakuriver.host.api.permissions import declared_permissions
from kohakuriver.host.api.tasks import logs
from kohakuriver.host.api.tasks import routes as tasks
from kohakuriver.host.api.tasks.output import OutputReader
from kohakuriver.host.api.vps import deletion as vps_deletion
from kohakuriver.host.api.vps import routes as vps
from kohakuriver.host.api.vps import snapshots as vps_snapshots
from kohakuriver.host.api.workloads import forward, fs, fs_archive, fs_watch, terminal


class HostApi(FastAPI):
    """FastAPI that hands no exception on to its server, which would log each of them once more."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fault_log = FaultLog()
        self.open_requests = OpenRequests()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Callable[[], None]] = []
        scope[HELD_KEY] = held
        try:
            await self.open_requests.answer(super().__call__, scope, receive, send)
        except Exception as error:  # noqa: BLE001 - boundary of one request
            # The fault of an ordinary request was answered and logged on the way here (`errors`).
            if scope["type"] == "websocket":
                self.fault_log.add(HTTPConnection(scope), error)
        finally:
            for give_back in held:
                give_back()


# A request is compared with one route after the other, so what comes most often stands first.
ENDPOINTS: tuple[Endpoint, ...] = (
    *runners.ENDPOINTS,
    *tasks.ENDPOINTS,
    *logs.ENDPOINTS,
    *events.ENDPOINTS,
    *nodes.ENDPOINTS,
    *auth.ENDPOINTS,
    *vps.ENDPOINTS,
    *vps_deletion.ENDPOINTS,
    *vps_snapshots.ENDPOINTS,
    *fs.ENDPOINTS,
    *fs_archive.ENDPOINTS,
    *docker.ENDPOINTS,
    *retention.ENDPOINTS,
    *registries.ENDPOINTS,
    *not_here.ENDPOINTS,
    *system.ENDPOINTS,
)

AUDITED: Rules = {
    **{(endpoint.method, endpoint.path): endpoint.audit for endpoint in ENDPOINTS if endpoint.audit},
    **{
        (WEBSOCKET, path): rule
        for rules in (terminal.AUDITED, fs_watch.AUDITED, forward.AUDITED)
        for path, rule in rules.items()
    },
}

__all__ = ["ApiParts", "OutputReader", "build_api"]


def build_api(parts: ApiParts) -> HostApi:
    """Return the app; raises RuntimeError if a route declares no permission, or changes things unseen."""
    app = HostApi(
        title="KohakuRiver host",
        version=__version__,
        description=(
            "Tasks, nodes and environments of one cluster. Times are ISO 8601 in UTC. A request that is too "
            "slow, has a coded body or too long headers is answered 408, 415 or 431 at any address, and 429 "
            "or 503 where too much comes from one place without a credential."
        ),
        openapi_url=None,
        redirect_slashes=False,
        # Costs two fifths of the request rate; our own figures are at /metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.router.route_class = DirectRoute
    app.state.parts = parts
    app.add_middleware(WatchRequests, figures=parts.requests, trails=AuditTrails(parts.audit, AUDITED))
    install_error_handlers(app, app.fault_log)
    for endpoint in ENDPOINTS:
        app.add_api_route(
            endpoint.path,
            endpoint.handler,
            methods=[endpoint.method],
            status_code=endpoint.status,
            response_model=None,
        )
    terminal.add_terminal(app)
    fs_watch.add_file_watch(app)
    forward.add_forward(app)
    declared_permissions(app)
    check_audited(app, AUDITED)
    app.state.description = describe(app, ENDPOINTS)
    return app
