"""Who is let near at all.

A TCP connection first meets a `TcpConnection`, which costs next to nothing while there is no room for it, and
then becomes a `PacedConnection`, or a tunnel of 1.0's clients.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

import asyncssh

from kohakuriver.host.gateway.earlier_tunnel import EarlierTunnel, FirstLine
from kohakuriver.host.gateway.login_limiter import LoginLimiter, PendingLogin
from kohakuriver.host.gateway.paced_connection import PacedConnection
from kohakuriver.host.gateway.ssh_connection import SshConnectionParts

PATIENCE_SECONDS = 20.0
_MOST_HEARD_BYTES = 16 << 10


class TcpConnection(asyncio.Protocol):
    """Makes an SSH connection of a TCP connection when `login_limiter` lets it in, or ends it.

    `earlier`: what takes the connections of clients of 1.0, None where they are not let in.
    """

    def __init__(
        self,
        login_limiter: LoginLimiter,
        options: asyncssh.SSHServerConnectionOptions,
        earlier: SshConnectionParts | None = None,
    ) -> None:
        self._login_limiter = login_limiter
        self._options = options
        self._earlier = earlier
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._pending_login: PendingLogin | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._heard = bytearray()
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tcp = cast(asyncio.Transport, transport)
        self._transport = tcp
        peer = tcp.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""  # nobody's: it is gone already
        loop = asyncio.get_running_loop()
        # Not called from within, so that the connection is known by then.
        self._pending_login = self._login_limiter.enter(
            self._address, partial(loop.call_soon, self._come_in, tcp)
        )
        if self._pending_login is None:
            tcp.abort()
        else:
            self._patience = loop.call_later(PATIENCE_SECONDS, self._give_up, tcp)

    def data_received(self, data: bytes) -> None:
        """Keep what a client says before it has been greeted, which is little."""
        self._heard += data
        if len(self._heard) > _MOST_HEARD_BYTES and self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._patience is not None:
            self._patience.cancel()
        if self._pending_login is not None:
            self._login_limiter.give_up(self._pending_login)

    def _come_in(self, tcp: asyncio.Transport) -> None:
        if self._patience is not None:
            self._patience.cancel()
        leave = partial(self._login_limiter.leave, cast(PendingLogin, self._pending_login))
        if self._lost:
            leave()
            return
        greet = partial(self._greet, tcp, leave)
        if self._earlier is None:
            greet(bytes(self._heard))
            return
        first = FirstLine(tcp, greet, partial(self._begin_tunnel, tcp, leave, self._earlier), leave)
        tcp.set_protocol(first)
        if self._heard:
            first.data_received(bytes(self._heard))

    def _greet(self, tcp: asyncio.Transport, leave: Callable[[], None], heard: bytes) -> None:
        connection = PacedConnection(self._options, self._address, leave)
        tcp.set_protocol(connection)
        connection.connection_made(tcp)
        if heard:
            connection.data_received(heard)

    def _begin_tunnel(
        self, tcp: asyncio.Transport, leave: Callable[[], None], parts: SshConnectionParts, heard: bytes
    ) -> None:
        parts.spawn(EarlierTunnel(parts, tcp, self._address, leave).serve(heard))

    def _give_up(self, tcp: asyncio.Transport) -> None:
        if self._pending_login is not None and self._login_limiter.give_up(self._pending_login):
            tcp.abort()
