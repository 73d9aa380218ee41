"""Who this node is at a registry: as the cluster says, then as its own user is, then nobody."""

from collections.abc import Awaitable, Callable

import structlog

from kohakuriver.dockerapi.docker_config import own_credential, server_of
from kohakuriver.dockerapi.registry_auth import Candidate, RegistryAuth, registry_auth
from kohakuriver.models.errors import HostRefused
from kohakuriver.wire.registry_credentials import RegistryCredential

_log = structlog.get_logger(__name__)

AskHost = Callable[[str], Awaitable[RegistryCredential]]
"""For the cluster's credential of a registry; raises Unavailable or HostRefused."""


class RegistryLogins:
    """Asks anew for each pull, so that a login or logout counts from the next one on."""

    def __init__(self, ask_host: AskHost) -> None:
        self._ask_host = ask_host

    def of(self, registry: str) -> tuple[Candidate, ...]:
        return (lambda: self._of_cluster(registry), lambda: own_credential(registry))

    async def _of_cluster(self, registry: str) -> RegistryAuth | None:
        try:
            found = await self._ask_host(registry)
        except HostRefused as error:
            # A host of an earlier version has none to give.
            _log.debug("registry_credential_refused", registry=registry, reason=str(error))
            return None
        if not found.username:
            return None
        server = server_of(registry)
        return registry_auth(
            "the cluster's credentials", server, username=found.username, password=found.password
        )
