"""The description of the interface, made from the routes as they are declared."""

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from kohakuriver.host.api.http.answers import Endpoint
from kohakuriver.host.api.http.bodies import JsonBody
from kohakuriver.host.api.permissions import RUNNER, Requires, RunnerOnly, permission_of
from kohakuriver.host.api.records import TaskRecord
from kohakuriver.host.api.vps_records import VpsRecord
from kohakuriver.models.enums import Role
from kohakuriver.wire.messages import EnrolRequest
from kohakuriver.wire.task_record import PendingReason
from kohakuriver.wire.trust.host_proof import PROVE_PATH, ProofQuestion

_READ_BY_HAND = {"/api/enrol": EnrolRequest, PROVE_PATH: ProofQuestion}
_GIVEN_IN_FULL = (TaskRecord, VpsRecord, PendingReason)
_REF = "#/components/schemas/{model}"
_MSGSPEC_REF = "#/components/schemas/{name}"
_ERROR = {"$ref": "#/components/schemas/Error"}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["detail"],
    "properties": {
        "detail": {"type": "string", "description": "a sentence that says what to do"},
        "field": {"type": "string", "description": "path of the field that is to blame, where known"},
    },
}
_TEXTS = {
    400: "a part that this cluster does not have, or has not switched on",
    401: "no valid credential",
    403: "not allowed",
    404: "not found",
    409: "not possible in the present state",
    413: "larger than the interface takes",
    416: "the range lies beyond the end",
    421: "called by a name that is not this host's, without a token",
    422: "the request does not fit",
    429: "more than one user may have waiting, or too much of this from there; try again later",
    500: "internal error",
    502: "the container engine refused or failed",
    503: "a part that is needed does not answer now",
}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "a user's token"},
    "runner": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "KohakuRiver2 <node>:<epoch>:<sender>:<number>:<length>:<digest>:<mac>, made "
        "by an enrolled runner over the request",
    },
}


def describe(app: FastAPI, endpoints: Iterable[Endpoint]) -> bytes:
    """Return the OpenAPI document as JSON."""
    table = {(endpoint.method, endpoint.path): endpoint for endpoint in endpoints}
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=routes)
    schemas = _schemas(routes, table.values())
    for route in routes:
        method = next(iter(route.methods or ()))
        operation = document["paths"][route.path_format][method.lower()]
        _complete(operation, route, table[method, route.path])
    document["components"] = {"schemas": schemas, "securitySchemes": _SECURITY}
    return msgspec.json.encode(document)


def _schemas(routes: list[APIRoute], endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    models = [kind for kind in map(_body_of, routes) if kind is not None and hasattr(kind, "model_fields")]
    _, bodies = models_json_schema([(kind, "validation") for kind in models], ref_template=_REF)
    answers = [endpoint.answers for endpoint in endpoints if endpoint.answers is not None]
    messages = [kind for kind in map(_body_of, routes) if kind is not None and kind not in models]
    _, records = msgspec.json.schema_components([*answers, *messages], ref_template=_MSGSPEC_REF)
    for kind in _GIVEN_IN_FULL:
        _require_all(records[kind.__name__])
    return {"Error": _ERROR_SCHEMA, **records, **bodies.get("$defs", {})}


def _require_all(schema: dict[str, Any]) -> None:
    """A client bears that a host of another version leaves fields out; this one gives all of them."""
    schema["required"] = list(schema["properties"])
    for field in schema["properties"].values():
        field.pop("default", None)


def _complete(operation: dict[str, Any], route: APIRoute, endpoint: Endpoint) -> None:
    permission = permission_of(route.dependant)
    operation["summary"] = route.name.replace("_", " ")
    operation["description"] = f"{inspect.getdoc(route.endpoint) or ''}\n\nPermission: {permission}.".strip()
    body = _body_of(route)
    if body is not None:
        operation["requestBody"] = {
            "required": _needs_a_body(body),
            "content": {"application/json": {"schema": _schema(body)}},
        }
    if endpoint.takes is not None:
        content = {endpoint.takes: {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": content}
    if permission == RUNNER:
        operation["security"] = [{"runner": []}]
    elif permission != Role.ANONY.name.lower():
        operation["security"] = [{"bearer": []}]
    statuses = {*endpoint.errors, 422, 500, 503}
    if permission != Role.ANONY.name.lower():
        statuses |= {401, 403}
    elif endpoint.method not in ("GET", "HEAD"):
        statuses |= {403}
    if body is not None:
        statuses |= {413}
    if _checks_name(route):
        statuses |= {421}
    operation["responses"] = _responses(endpoint, statuses)


def _responses(endpoint: Endpoint, statuses: set[int]) -> dict[str, Any]:
    answered: dict[str, Any] = {"description": "done"}
    schema = {"type": "string"} if endpoint.answers is None else _schema(endpoint.answers)
    answered["content"] = {endpoint.media_type: {"schema": schema}}
    responses: dict[str, Any] = {str(endpoint.status): answered}
    if 416 in statuses:
        responses["206"] = {**answered, "description": "the range that was asked for"}
        responses["416"] = {**answered, "description": _TEXTS[416]}
    for status in sorted(statuses - {416}):
        content = {"application/json": {"schema": _ERROR}}
        if status == 503 and endpoint.path == "/readyz":
            content = {"application/json": {"schema": schema}}
        responses[str(status)] = {"description": _TEXTS[status], "content": content}
    return responses


def _schema(kind: Any) -> dict[str, Any]:
    if hasattr(kind, "model_fields"):
        return {"$ref": _REF.format(model=kind.__name__)}
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_MSGSPEC_REF)
    return schema


def _checks_name(route: APIRoute) -> bool:
    calls = [dependency.call for dependency in route.dependant.dependencies]
    return any(isinstance(call, Requires) and not call.any_name for call in calls)


def _needs_a_body(kind: Any) -> bool:
    fields = getattr(kind, "model_fields", None)
    return fields is None or any(field.is_required() for field in fields.values())


def _body_of(route: APIRoute) -> Any:
    """The type of the body that a route reads, or None."""
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, JsonBody):
            return dependency.call.model
        if isinstance(dependency.call, RunnerOnly):
            return dependency.call.kind
    return _READ_BY_HAND.get(route.path) if route.methods == {"POST"} else None
