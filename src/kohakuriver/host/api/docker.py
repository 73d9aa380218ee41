"""Environments: their containers on the host, and their tarballs in the shared storage."""

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import Depends
from starlette.responses import Response

from kohakuriver.host.api.answers import Endpoint, Message, answer
from kohakuriver.host.api.bodies import CreateContainerBody, JsonBody
from kohakuriver.host.api.node_images import remove_from_nodes
from kohakuriver.host.api.path_fields import EnvironmentName
from kohakuriver.host.api.permissions import OperatorCall
from kohakuriver.host.environments.environment_settings import EnvironmentTarballs
from kohakuriver.models.names import check_environment_name, check_image_reference


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An environment's container on the host. `status` is the engine's word."""

    name: str
    container: str
    image: str
    status: str
    created: datetime


class TarballVersion(msgspec.Struct, frozen=True, kw_only=True):
    timestamp: int
    tarball: str
    size_bytes: int


class TarballsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An environment in the shared storage; the newest tarball is the current one."""

    name: str
    latest_timestamp: int
    latest_tarball: str
    size_bytes: int
    all_versions: list[TarballVersion]


async def list_containers(call: OperatorCall) -> Response:
    """List the containers in which environments are made."""
    return answer(await call.parts.environments.list_containers())


async def create_container(
    call: OperatorCall, body: Annotated[CreateContainerBody, Depends(JsonBody(CreateContainerBody))]
) -> Response:
    """Make an environment's container from an image. Answered when done, which may take minutes."""
    name = check_environment_name(body.container_name)
    call.trail.note(name, body.image_name)
    image = check_image_reference(body.image_name)
    await call.parts.environments.create_container(image, name, pull=body.pull)
    return answer(Message(f"environment {name} is made from {body.image_name}"))


async def start_container(call: OperatorCall, name: EnvironmentName) -> Response:
    await call.parts.environments.start_container(check_environment_name(name))
    return answer(Message(f"environment {name} is started"))


async def stop_container(call: OperatorCall, name: EnvironmentName) -> Response:
    await call.parts.environments.stop_container(check_environment_name(name))
    return answer(Message(f"environment {name} is stopped"))


async def delete_container(call: OperatorCall, name: EnvironmentName) -> Response:
    """Remove an environment's container; its tarballs stay."""
    await call.parts.environments.delete_container(check_environment_name(name))
    return answer(Message(f"the container of environment {name} is deleted"))


async def migrate_container(call: OperatorCall, name: EnvironmentName) -> Response:
    """Make an environment of a container of this machine that is not ours; that one stays as it is."""
    await call.parts.environments.migrate_container(check_environment_name(name))
    return answer(Message(f"environment {name} is migrated"))


async def list_tarballs(call: OperatorCall) -> Response:
    """List the environments that nodes can use."""
    return answer([_tarballs_record(found) for found in await call.parts.environments.list_tarballs()])


async def create_tarball(call: OperatorCall, name: EnvironmentName) -> Response:
    """Export an environment for the nodes. Answered when done, which may take minutes."""
    made = await call.parts.environments.create_tar(check_environment_name(name))
    return answer(Message(f"{made.path.name} is made; nodes take it when they next use environment {name}"))


async def show_tarballs(call: OperatorCall, name: EnvironmentName) -> Response:
    """Show the tarballs of one environment."""
    found = await call.parts.environments.inspect_tarballs(check_environment_name(name))
    return answer(_tarballs_record(found))


async def delete_tarballs(call: OperatorCall, name: EnvironmentName) -> Response:
    """Delete every tarball of an environment, and its images on the nodes; what runs on them goes on."""
    deleted = await call.parts.environments.delete_tarballs(check_environment_name(name))
    on_nodes = await remove_from_nodes(call, name)
    return answer(Message(f"{len(deleted.versions)} tarballs of environment {name} are deleted; {on_nodes}"))


def _tarballs_record(found: EnvironmentTarballs) -> TarballsRecord:
    latest = found.latest
    return TarballsRecord(
        name=found.name,
        latest_timestamp=latest.unix_time,
        latest_tarball=latest.path.name,
        size_bytes=latest.size_bytes,
        all_versions=[
            TarballVersion(timestamp=one.unix_time, tarball=one.path.name, size_bytes=one.size_bytes)
            for one in found.versions
        ],
    )


_FAULTS = (404, 409, 502, 503)
ENDPOINTS = (
    Endpoint("GET", "/api/docker/host/containers", list_containers, list[ContainerRecord], errors=(502, 503)),
    Endpoint(
        "POST",
        "/api/docker/host/create",
        create_container,
        Message,
        errors=_FAULTS,
        audit="environment.create",
    ),
    Endpoint(
        "POST",
        "/api/docker/host/start/{name}",
        start_container,
        Message,
        errors=_FAULTS,
        audit="environment.start",
    ),
    Endpoint(
        "POST",
        "/api/docker/host/stop/{name}",
        stop_container,
        Message,
        errors=_FAULTS,
        audit="environment.stop",
    ),
    Endpoint(
        "POST",
        "/api/docker/host/delete/{name}",
        delete_container,
        Message,
        errors=_FAULTS,
        audit="environment.delete",
    ),
    Endpoint(
        "POST",
        "/api/docker/host/migrate/{name}",
        migrate_container,
        Message,
        errors=_FAULTS,
        audit="environment.migrate",
    ),
    Endpoint("GET", "/api/docker/list", list_tarballs, list[TarballsRecord], errors=(503,)),
    Endpoint(
        "POST",
        "/api/docker/create_tar/{name}",
        create_tarball,
        Message,
        errors=_FAULTS,
        audit="environment.export",
    ),
    Endpoint("GET", "/api/docker/container/{name}", show_tarballs, TarballsRecord, errors=(404,)),
    Endpoint(
        "DELETE",
        "/api/docker/container/{name}",
        delete_tarballs,
        Message,
        errors=_FAULTS,
        audit="environment.delete_tarballs",
    ),
)
