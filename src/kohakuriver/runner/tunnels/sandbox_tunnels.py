"""The sandboxes of this node that have a secret, those of them that are connected, and the way into them.

The engine says which there are (`learn`, `forget`). A connection is served once it has proven to be one of
them. Rules: a sandbox has one connection, and a newer one takes the place of the older; a connection ends
with what it was proven by, which is the sandbox itself, its address and its secret. A client has one
connection, so a new one says that all streams of an earlier one are over.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from kohakuriver.broadcast import Broadcast
from kohakuriver.models.errors import SwitchedOff, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.repeated_news import RepeatedNews
from kohakuriver.runner.tunnels.arrivals import Arrivals
from kohakuriver.runner.tunnels.client_program import TunnelClient
from kohakuriver.runner.tunnels.connection import TunnelConnection, TunnelSocket
from kohakuriver.runner.tunnels.held_bytes import HeldBytes
from kohakuriver.runner.tunnels.outer_tunnel import OuterTunnel
from kohakuriver.wire.tunnel.life import Life

CONFIRM_SECONDS = 2.0
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

    def __init__(
        self,
        life: Callable[[float], Life] = Life,
        client: TunnelClient = TunnelClient(None),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        *,
        held: HeldBytes | None = None,
    ) -> None:
        """`client`: what runs in sandboxes, or why that is nothing."""
        self.is_ready = False
        self.arrivals = Arrivals(clock)
        self._client = client
        self._life = life
        self._identities: dict[str, SandboxIdentity] = {}
        self._ids: dict[str, str] = {}  # by name
        self._connections: dict[str, TunnelConnection] = {}
        self._connected = Broadcast()
        self._held = held or HeldBytes()
        self._refusals = RepeatedNews()
        self._unconfirmed: set[str] = set()
        """Sandboxes whose connection was lost with streams that its client may still have."""

    def check_offered(self) -> None:
        """Raise SwitchedOff, with the reason, where this node has no tunnels."""
        if self._client.why_none:
            raise SwitchedOff(self._client.why_none)

    def notices(self) -> list[str]:
        """What keeps ports from being forwarded, and should not."""
        return [self._client.why_none] if self._client.is_wanted else self.arrivals.notices()

    def learn(self, identity: SandboxIdentity) -> None:
        """Take in a sandbox, or what is new of one."""
        if self._identities.get(identity.id) != identity:
            self.forget(identity.id)
            self._identities[identity.id] = identity
            self._ids[identity.name] = identity.id
            self.arrivals.expect(identity.id, identity.name)

    def forget(self, sandbox_id: str) -> None:
        """Its secret is worth nothing from now on."""
        identity = self._identities.pop(sandbox_id, None)
        if identity is not None and self._ids.get(identity.name) == sandbox_id:
            del self._ids[identity.name]
        self._end(sandbox_id)
        self._unconfirmed.discard(sandbox_id)
        self.arrivals.forget(sandbox_id)

    def named(self, name: str) -> SandboxIdentity | None:
        return self._identities.get(self._ids.get(name, ""))

    async def named_soon(self, name: str) -> SandboxIdentity | None:
        """Like `named`; one that is being started is waited for."""
        await self.arrivals.until_known(name)
        return self.named(name)

    def connected(self, sandbox_id: str) -> bool:
        return sandbox_id in self._connections

    def open_tunnel(self, sandbox_id: str, task_id: TaskId) -> OuterTunnel:
        """Begin a tunnel into the sandbox of a workload; SwitchedOff where it has none, Unavailable just now.

        What cannot be reached over it is said in the log.
        """
        if sandbox_id not in self._identities:
            raise SwitchedOff(
                "the ports of this workload are not reached: it was started while its node had no tunnels "
                "(TUNNEL_ENABLED = False)"
            )
        connection = self._connections.get(sandbox_id)
        if connection is None:
            raise Unavailable("the tunnel client beside this workload is not connected just now; try again")
        return connection.open_tunnel(task_id, partial(self._tell_refused, task_id))

    def _tell_refused(self, task_id: TaskId, reason: str) -> None:
        if self._refusals.due((task_id, reason)):
            earlier = self._refusals.take_kept_back((task_id, reason))
            _log.info("stream_refused", task_id=task_id, reason=reason, more_before=earlier)

    def end_tunnels(self, sandbox_id: str) -> None:
        """End what leads into a sandbox, whose workload has ended."""
        if (connection := self._connections.get(sandbox_id)) is not None:
            connection.end_tunnels(Unavailable("the workload has ended"))

    async def are_streams_closed(self, sandbox_id: str) -> bool:
        """Whether the client in it confirms, in time, that no stream is left of tunnels that were ended."""
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                while sandbox_id in self._unconfirmed:
                    await self._connected.wait()
                if (connection := self._connections.get(sandbox_id)) is not None:
                    await connection.until_closed()
        except (TimeoutError, Unavailable) as error:
            _log.warning("streams_not_confirmed_closed", sandbox=sandbox_id, reason=str(error) or "late")
            return False
        return True

    async def serve(self, identity: SandboxIdentity, socket: TunnelSocket) -> None:
        """Keep the connection of a sandbox that has proven itself until it is over."""
        self._end(identity.id)
        self._unconfirmed.discard(identity.id)
        connection = self._connections[identity.id] = TunnelConnection(socket, self._life, self._held)
        self.arrivals.came(identity.id)
        self._connected.wake_all()
        _log.debug("sandbox_connected", sandbox=identity.name)
        try:
            reason = await connection.run()
        finally:
            if self._connections.get(identity.id) is connection:
                del self._connections[identity.id]
                self.arrivals.went(identity.id)
                if connection.has_opened and identity.id in self._identities:
                    self._unconfirmed.add(identity.id)
        _log.debug("sandbox_disconnected", sandbox=identity.name, reason=reason)

    def _end(self, sandbox_id: str) -> None:
        connection = self._connections.pop(sandbox_id, None)
        if connection is not None:
            connection.end()
