"""The cluster's credentials for registries: given, listed without their secrets, taken back."""

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from kohakuriver.host.api.http.answers import Endpoint, Message, answer, encode, json_answer
from kohakuriver.host.api.http.auditing import Unaudited
from kohakuriver.host.api.http.bodies import JsonBody, RegistryLoginBody
from kohakuriver.host.api.permissions import OperatorCall, RunnerCall, RunnerOnly
from kohakuriver.models.spec.image_references import parse_image_reference, registry_name
from kohakuriver.wire.registry_credentials import RegistryCredential, RegistryQuestion

_MAX_QUESTION_BYTES = 4096
RegistryName = Annotated[str, Query(min_length=1, max_length=300)]


class KeptCredential(msgspec.Struct, frozen=True, kw_only=True):
    """Who the cluster is at a registry, and who said so. The password is shown to nobody."""

    registry: str
    username: str
    kept_by: str
    kept_at: datetime


async def list_credentials(call: OperatorCall) -> Response:
    """List the registries that the cluster has credentials for."""
    rows = call.parts.registries.all()
    return answer(
        [
            KeptCredential(
                registry=row.registry, username=row.username, kept_by=row.kept_by, kept_at=row.kept_at
            )
            for row in rows
        ]
    )


async def log_in(
    call: OperatorCall, body: Annotated[RegistryLoginBody, Depends(JsonBody(RegistryLoginBody))]
) -> Response:
    """Keep a credential for a registry, in the place of one that is there. Pulls use it from now on."""
    registry = registry_name(body.registry)
    call.trail.note(registry, f"as {body.username}")
    await call.parts.registries.keep(registry, body.username, body.password, call.actor.name)
    return answer(Message(f"the cluster pulls from {registry} as {body.username} from now on"))


async def log_out(call: OperatorCall, registry: RegistryName) -> Response:
    """Forget a credential. Images that were pulled with it stay where they are."""
    name = registry_name(registry)
    call.trail.note(name)
    await call.parts.registries.forget(name)
    return answer(Message(f"the cluster has no credentials for {name} any more"))


async def hand_to_runner(
    call: Annotated[RunnerCall[RegistryQuestion], Depends(RunnerOnly(RegistryQuestion, _MAX_QUESTION_BYTES))],
    request: Request,
) -> Response:
    """Give a node the credential for an image that a task names which starts there now, and no other."""
    registry = call.message.registry
    found = call.parts.registries.of(registry) if _is_pulled_at(call, registry) else None
    return json_answer(request, encode(found or RegistryCredential()), 200)


def _is_pulled_at(call: RunnerCall[RegistryQuestion], registry: str) -> bool:
    images = [task.spec.registry_image for task in call.control.runners.starting_on(call.node)]
    return any(image and parse_image_reference(image).registry == registry for image in images)


ENDPOINTS = (
    Endpoint("GET", "/api/docker/registries", list_credentials, list[KeptCredential]),
    Endpoint("PUT", "/api/docker/registries", log_in, Message, errors=(409,), audit="registry.login"),
    Endpoint(
        "DELETE",
        "/api/docker/registries",
        log_out,
        Message,
        errors=(404,),
        audit="registry.logout",
    ),
    Endpoint(
        "POST",
        "/api/registry-credential",
        hand_to_runner,
        RegistryCredential,
        errors=(404,),
        audit=Unaudited("a node that pulls an image for a task, which is in the events"),
    ),
)
