"""Environments: their containers on the host, and their tarballs in the shared storage."""

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import Depends
from starlette.responses import Response

from kohakuriver.host.api.environments.node_images import remove_from_nodes
from kohakuriver.host.api.http.answers import Endpoint, Message, answer
from kohakuriver.host.api.http.bodies import CreateContainerBody, JsonBody
from kohakuriver.host.api.path_fields import EnvironmentName
from kohakuriver.host.api.permissions import Call, OperatorCall
from kohakuriver.host.environments.environment_settings import EnvironmentTarballs
from kohakuriver.models.names import (
    check_environment_name,
    check_image_reference,
    environment_container_name,
    is_own_container_name,
)


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An environment's container on the host. `status` is the engine's word.

    `name` and `container` are the container's name, `env_name` is that of the environment in it.
    """

    id: str
    name: str
    env_name: str
    container: str
    image: str
    status: str
    created: datetime


class Migrated(msgspec.Struct, frozen=True, kw_only=True):
    """`old_name` is the container that was migrated and stays, `new_name` the environment's container."""

    message: str
    old_name: str
    new_name: str
    env_name: str


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
    found = await call.parts.environments.list_containers()
    return answer(
        [
            ContainerRecord(
                id=one.id,
                name=one.container,
                env_name=one.name,
                container=one.container,
                image=one.image,
                status=one.status,
                created=one.created,
            )
            for one in found
        ]
    )


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
    name = await environment_named(call, name)
    await call.parts.environments.start_container(name)
    return answer(Message(f"environment {name} is started"))


async def stop_container(call: OperatorCall, name: EnvironmentName) -> Response:
    name = await environment_named(call, name)
    await call.parts.environments.stop_container(name)
    return answer(Message(f"environment {name} is stopped"))


async def delete_container(call: OperatorCall, name: EnvironmentName, force: bool = True) -> Response:
    """Remove an environment's container; its tarballs stay. `force` false: not one that runs."""
    name = await environment_named(call, name)
    await call.parts.environments.delete_container(name, force=force)
    return answer(Message(f"the container of environment {name} is deleted"))


async def migrate_container(call: OperatorCall, name: EnvironmentName) -> Response:
    """Make an environment of a container of this machine that is not ours; that one stays as it is."""
    await call.parts.environments.migrate_container(check_environment_name(name))
    return answer(
        Migrated(
            message=f"environment {name} is migrated",
            old_name=name,
            new_name=environment_container_name(name),
            env_name=name,
        )
    )


async def list_tarballs(call: OperatorCall) -> Response:
    """Show the environments that nodes can use, by their names."""
    found = await call.parts.environments.list_tarballs()
    return answer({one.name: _tarballs_record(one) for one in found})


async def create_tarball(call: OperatorCall, name: EnvironmentName) -> Response:
    """Export an environment for the nodes. Answered when done, which may take minutes."""
    name = await environment_named(call, name)
    made = await call.parts.environments.create_tar(name)
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


async def environment_named(call: Call, name: str) -> str:
    """The environment that is meant, by its own name or by its container's, as the list shows both."""
    if is_own_container_name(name):
        found = {one.name: one.container for one in await call.parts.environments.list_containers()}
        if name not in found:
            name = next((env for env, container in found.items() if container == name), name)
    return check_environment_name(name)


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
        Migrated,
        errors=_FAULTS,
        audit="environment.migrate",
    ),
    Endpoint("GET", "/api/docker/list", list_tarballs, dict[str, TarballsRecord], errors=(503,)),
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
