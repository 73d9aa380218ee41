# shape: whose credentials are used at a registry, and in which order, is found by its name
"""Who the host is at a registry when it pulls: as the cluster, then as its own user, then nobody."""

from typing import Protocol

from kohakuriver.dockerapi.docker_config import own_credential, server_of
from kohakuriver.dockerapi.registry_auth import Candidate, RegistryAuth, registry_auth
from kohakuriver.wire.registry_credentials import RegistryCredential


class KeptCredentials(Protocol):
    """The cluster's credentials for registries (`host.registries`)."""

    def of(self, registry: str) -> RegistryCredential | None: ...


def registry_logins(kept: KeptCredentials | None, registry: str) -> tuple[Candidate, ...]:
    async def of_cluster() -> RegistryAuth | None:
        found = kept.of(registry) if kept is not None else None
        if found is None:
            return None
        return registry_auth(
            "the cluster's credentials",
            server_of(registry),
            username=found.username,
            password=found.password,
        )

    return (of_cluster, lambda: own_credential(registry))
