"""The cluster's credentials for registries: kept sealed, opened for a pull, shown to nobody.

A password is sealed with AES-256-GCM under a key that is derived from the host's own key, with registry and
user bound in. So the database by itself opens nothing, and no row can stand in for another.
"""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kohakuriver.host.store import queries, writes
from kohakuriver.host.store.records import RegistryCredentialRow
from kohakuriver.host.store.store import Store
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.wire.registry_credentials import RegistryCredential
from kohakuriver.wire.trust.identity import Identity

MOST_REGISTRIES = 1000
_PURPOSE = b"kohakuriver registry credentials v1"
_NONCE_BYTES = 12
log = structlog.get_logger()


class RegistryCredentials:
    """Make it with `open`; used only from the event loop. A change is written before it counts."""

    def __init__(self, store: Store, identity: Identity, rows: Iterable[RegistryCredentialRow]) -> None:
        self._store = store
        self._key = AESGCM(identity.own_key(_PURPOSE))
        self._rows = {row.registry: row for row in rows}

    @classmethod
    async def open(cls, store: Store, identity: Identity) -> "RegistryCredentials":
        return cls(store, identity, await store.read(queries.all_registry_credentials))

    def all(self) -> list[RegistryCredentialRow]:
        """By the registries' names; what is sealed in them stays sealed."""
        return [row for _, row in sorted(self._rows.items())]

    async def keep(self, registry: str, username: str, password: str, by: str) -> None:
        """Keep it in the place of one that is there; raises Conflict for more than `MOST_REGISTRIES`."""
        if registry not in self._rows and len(self._rows) >= MOST_REGISTRIES:
            raise Conflict(f"there are credentials for {MOST_REGISTRIES} registries; log out of one first")
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._key.encrypt(nonce, password.encode(), _bound_in(registry, username))
        row = RegistryCredentialRow(registry, username, sealed, by, datetime.now(UTC))
        await self._store.write(partial(writes.put_registry_credential, credential=row))
        self._rows[registry] = row

    async def forget(self, registry: str) -> None:
        """Raises NotFound if there is none."""
        if registry not in self._rows:
            raise NotFound(f"the cluster has no credentials for {registry}")
        await self._store.write(partial(writes.delete_registry_credential, registry=registry))
        self._rows.pop(registry, None)

    def of(self, registry: str) -> RegistryCredential | None:
        """For a pull that is about to begin; None without one that can be opened."""
        row = self._rows.get(registry)
        if row is None:
            return None
        nonce, sealed = row.sealed[:_NONCE_BYTES], row.sealed[_NONCE_BYTES:]
        try:
            password = self._key.decrypt(nonce, sealed, _bound_in(registry, row.username))
        except (InvalidTag, ValueError):
            # The host has another key by now.
            log.warning("registry_credential_void", registry=registry)
            return None
        return RegistryCredential(username=row.username, password=password.decode())


def _bound_in(registry: str, username: str) -> bytes:
    return f"{registry}\n{username}".encode()
