"""The runner's API: one table of routes, each with the permission that it needs, and what they do.

All that is served here is for the runner's own host; `host_credential` stands before every route.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kohakuriver.models.enums import OrderKind
from kohakuriver.models.errors import InvalidInput, KohakuRiverError
from kohakuriver.models.names import check_environment_name
from kohakuriver.runner.api import vps_routes
from kohakuriver.runner.api.file_routes import file_routes
from kohakuriver.runner.api.host_credential import HostCredential
from kohakuriver.runner.api.output import send_output
from kohakuriver.runner.api.services import DeclaredRoute, Handler, RunnerServices, json_answer
from kohakuriver.runner.api.streams import Streams
from kohakuriver.wire.leftovers import RemovalRequest
from kohakuriver.wire.messages import Order, decode

_log = structlog.get_logger(__name__)


async def _orders(services: RunnerServices, request: Request) -> Response:
    orders = decode(await request.body(), list[Order])
    return json_answer(await services.take_orders(orders))


def _single(kind: OrderKind) -> Handler:
    """The form of the document: one order, its kind in the path; a refusal is 422 with the sentence."""

    async def handler(services: RunnerServices, request: Request) -> Response:
        fields = decode(await request.body(), dict[str, Any])
        try:
            order = msgspec.convert({**fields, "kind": kind.value}, Order)
        except (msgspec.ValidationError, RecursionError) as error:
            raise InvalidInput(f"the message does not fit: {error}") from error
        (answer,) = await services.take_orders([order])
        if not answer.accepted:
            raise InvalidInput(answer.detail or "the order is refused")
        return json_answer(answer)

    return handler


async def _images(services: RunnerServices, _request: Request) -> Response:
    return json_answer(await services.list_images())


async def _sync(services: RunnerServices, request: Request) -> Response:
    name = check_environment_name(request.path_params["name"])
    await services.sync_environment(name)
    return json_answer({"message": f"environment {name} is current on this node"})


async def _remove(services: RunnerServices, request: Request) -> Response:
    name = check_environment_name(request.path_params["name"])
    await services.remove_environment(name)
    return json_answer({"message": f"environment {name} is not on this node any more"})


async def _tell_leftovers(services: RunnerServices, _request: Request) -> Response:
    return json_answer(await services.leftovers.tell())


async def _remove_leftovers(services: RunnerServices, request: Request) -> Response:
    return json_answer(await services.leftovers.remove(decode(await request.body(), RemovalRequest)))


async def _healthz(_services: RunnerServices, _request: Request) -> Response:
    return json_answer({"status": "ok"})


async def _readyz(services: RunnerServices, _request: Request) -> Response:
    faults = [{"part": "runner", "message": fault} for fault in services.faults()]
    status = "not ready" if faults else "ready"
    return json_answer({"status": status, "faults": faults}, 503 if faults else 200)


_ROUTES = (
    DeclaredRoute("POST", "/api/orders", _orders),
    DeclaredRoute("POST", "/api/execute", _single(OrderKind.EXECUTE)),
    DeclaredRoute("POST", "/api/kill", _single(OrderKind.KILL)),
    DeclaredRoute("POST", "/api/pause", _single(OrderKind.PAUSE)),
    DeclaredRoute("POST", "/api/resume", _single(OrderKind.RESUME)),
    DeclaredRoute("POST", "/api/signal/{task_id}", vps_routes.send_signal),
    DeclaredRoute("POST", "/api/vps/create", _single(OrderKind.EXECUTE)),
    DeclaredRoute("POST", "/api/vps/stop/{task_id}", vps_routes.steer_vps(OrderKind.STOP)),
    DeclaredRoute("POST", "/api/vps/pause/{task_id}", vps_routes.steer_vps(OrderKind.PAUSE)),
    DeclaredRoute("POST", "/api/vps/resume/{task_id}", vps_routes.steer_vps(OrderKind.RESUME)),
    DeclaredRoute("DELETE", "/api/vps/{task_id}", vps_routes.delete_vps),
    DeclaredRoute("GET", "/api/vps/snapshots/{task_id}", vps_routes.list_snapshots),
    DeclaredRoute("POST", "/api/vps/snapshots/{task_id}", vps_routes.take_snapshot),
    DeclaredRoute("DELETE", "/api/vps/snapshots/{task_id}", vps_routes.delete_snapshots),
    DeclaredRoute("GET", "/api/vps/snapshots/{task_id}/latest", vps_routes.latest_snapshot),
    DeclaredRoute("DELETE", "/api/vps/snapshots/{task_id}/{timestamp}", vps_routes.delete_snapshot),
    DeclaredRoute("POST", "/api/vps/snapshots/{task_id}/{timestamp}/export", vps_routes.export_snapshot),
    DeclaredRoute("POST", "/api/vps/snapshots/{task_id}/{timestamp}/import", vps_routes.import_snapshot),
    DeclaredRoute("GET", "/api/leftovers", _tell_leftovers),
    DeclaredRoute("POST", "/api/leftovers/remove", _remove_leftovers),
    DeclaredRoute("GET", "/api/docker/images", _images),
    DeclaredRoute("POST", "/api/docker/sync/{name}", _sync),
    DeclaredRoute("DELETE", "/api/docker/images/{name}", _remove),
    DeclaredRoute("GET", "/api/logs/{task_id}/{stream}", send_output),
    *(DeclaredRoute(method, path, handler) for (method, path), handler in file_routes().items()),
    DeclaredRoute("GET", "/healthz", _healthz),
    DeclaredRoute("GET", "/readyz", _readyz),
)


def declared_routes() -> tuple[DeclaredRoute, ...]:
    """Every route of the runner's API."""
    return _ROUTES


def runner_api(services: RunnerServices) -> ASGIApp:
    """Return the application, with the check of credentials before it."""
    app = Starlette(
        routes=[
            Route(route.path, _bound(services, route.handler), methods=[route.method]) for route in _ROUTES
        ],
        exception_handlers={KohakuRiverError: _on_error, HTTPException: _on_http_error},
    )
    app.router.redirect_slashes = False
    return HostCredential(app, Streams(services.streams), services.node, services.keys)


def _bound(services: RunnerServices, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await handler(services, request)
        except KohakuRiverError:
            raise
        except Exception as error:  # noqa: BLE001 - boundary of one request
            _log.exception("request_failed", path=request.url.path)
            return json_answer({"detail": f"the runner failed ({type(error).__name__}); see its log"}, 500)

    return endpoint


async def _on_error(_request: Request, error: Exception) -> Response:
    status = error.http_status if isinstance(error, KohakuRiverError) else 500
    document: dict[str, Any] = {"detail": str(error)}
    if isinstance(error, InvalidInput) and error.field is not None:
        document["field"] = error.field
    return json_answer(document, status)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return json_answer({"detail": str(getattr(error, "detail", error))}, status)
