"""Calls about environments: their containers on the host, their tarballs in shared storage.

Making a container and exporting a tarball answer when they are done, which may take minutes.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from kohakuriver.client.connection.transport import LONG_WORK_SECONDS, Transport
from kohakuriver.client.records import (
    EnvironmentContainer,
    EnvironmentTarballs,
    Message,
    RegistryLogin,
    Reply,
)
from kohakuriver.models.enums import PullPolicy

_REGISTRIES = "/api/docker/registries"

_ENVIRONMENTS: Any = dict[str, EnvironmentTarballs] | list[EnvironmentTarballs]


class EnvironmentsApi:
    """`/api/docker/…`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def containers(self) -> Reply[list[EnvironmentContainer]]:
        return self._transport.fetch(list[EnvironmentContainer], "GET", "/api/docker/host/containers")

    def create_container(
        self, image: str, name: str, pull: PullPolicy = PullPolicy.MISSING
    ) -> Reply[Message]:
        body = {"image_name": image, "container_name": name}
        if pull is not PullPolicy.MISSING:
            body["pull"] = pull.value
        return self._transport.fetch(
            Message,
            "POST",
            "/api/docker/host/create",
            body=body,
            timeout_seconds=LONG_WORK_SECONDS,
        )

    def start_container(self, name: str) -> Reply[Message]:
        return self._on_container("start", name)

    def stop_container(self, name: str) -> Reply[Message]:
        return self._on_container("stop", name)

    def delete_container(self, name: str, *, force: bool = False) -> Reply[Message]:
        """`force`: also one that runs."""
        return self._on_container("delete", name, {"force": force})

    def migrate_container(self, name: str) -> Reply[Message]:
        return self._on_container("migrate", name)

    def tarballs(self) -> Reply[list[EnvironmentTarballs]]:
        """Return the environments, by name. Hosts of before answer a list, of now an object."""
        reply = self._transport.fetch(_ENVIRONMENTS, "GET", "/api/docker/list")
        if isinstance(reply.value, dict):
            return Reply(list(reply.value.values()), list(reply.raw.values()))
        return reply

    def create_tarball(self, name: str) -> Reply[Message]:
        return self._transport.fetch(
            Message,
            "POST",
            f"/api/docker/create_tar/{quote(name, safe='')}",
            timeout_seconds=LONG_WORK_SECONDS,
        )

    def delete_tarballs(self, name: str) -> Reply[Message]:
        """Delete every tarball of an environment, and its images on the nodes."""
        return self._transport.fetch(
            Message,
            "DELETE",
            f"/api/docker/container/{quote(name, safe='')}",
            timeout_seconds=LONG_WORK_SECONDS,
        )

    def registries(self) -> Reply[list[RegistryLogin]]:
        return self._transport.fetch(list[RegistryLogin], "GET", _REGISTRIES)

    def log_in(self, registry: str, username: str, password: str) -> Reply[Message]:
        body = {"registry": registry, "username": username, "password": password}
        return self._transport.fetch(Message, "PUT", _REGISTRIES, body=body)

    def log_out(self, registry: str) -> Reply[Message]:
        return self._transport.fetch(Message, "DELETE", _REGISTRIES, params={"registry": registry})

    def _on_container(
        self, action: str, name: str, params: Mapping[str, Any] | None = None
    ) -> Reply[Message]:
        return self._transport.fetch(
            Message,
            "POST",
            f"/api/docker/host/{action}/{quote(name, safe='')}",
            params=params,
            timeout_seconds=LONG_WORK_SECONDS,
        )
