"""The sandboxes of this node that have a secret, and those of them that are connected.

The engine says which there are (`learn`, `forget`). A connection is served once it has proven to be one of
them. Rules: a sandbox has one connection, and a newer one takes the place of the older; a connection ends
with what it was proven by, which is the sandbox itself, its address and its secret.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from kohakuriver.runner.tunnels.connection import TunnelConnection, TunnelSocket
from kohakuriver.wire.tunnel.life import Life

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxIdentity:
    """`id`: of its container. `name` is what it is asked for by, and `address` where it speaks from."""

    id: str
    name: str
    address: str
    secret: bytes = field(repr=False)


class SandboxTunnels:
    """One per runner, used from its event loop. `is_ready`: what an earlier runner left is known as well."""

    def __init__(self, life: Callable[[float], Life] = Life) -> None:
        self.is_ready = False
        self._life = life
        self._identities: dict[str, SandboxIdentity] = {}
        self._ids: dict[str, str] = {}  # by name
        self._connections: dict[str, TunnelConnection] = {}

    def learn(self, identity: SandboxIdentity) -> None:
        """Take in a sandbox, or what is new of one."""
        if self._identities.get(identity.id) != identity:
            self.forget(identity.id)
            self._identities[identity.id] = identity
            self._ids[identity.name] = identity.id

    def forget(self, sandbox_id: str) -> None:
        """Its secret is worth nothing from now on."""
        identity = self._identities.pop(sandbox_id, None)
        if identity is not None and self._ids.get(identity.name) == sandbox_id:
            del self._ids[identity.name]
        self._end(sandbox_id)

    def named(self, name: str) -> SandboxIdentity | None:
        return self._identities.get(self._ids.get(name, ""))

    def connected(self, sandbox_id: str) -> bool:
        return sandbox_id in self._connections

    async def serve(self, identity: SandboxIdentity, socket: TunnelSocket) -> None:
        """Keep the connection of a sandbox that has proven itself until it is over."""
        self._end(identity.id)
        connection = self._connections[identity.id] = TunnelConnection(socket, self._life)
        _log.debug("sandbox_connected", sandbox=identity.name)
        try:
            reason = await connection.run()
        finally:
            if self._connections.get(identity.id) is connection:
                del self._connections[identity.id]
        _log.debug("sandbox_disconnected", sandbox=identity.name, reason=reason)

    def _end(self, sandbox_id: str) -> None:
        connection = self._connections.pop(sandbox_id, None)
        if connection is not None:
            connection.end()
