"""The SSH server itself: its listener, what it speaks, and who is turned away."""

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import asyncssh
import structlog

from kohakuriver.host.audit import AuditLog
from kohakuriver.host.gateway.login_limiter import LoginLimiter
from kohakuriver.host.gateway.ssh_connection import LastingConnection, SshConnection, SshConnectionParts
from kohakuriver.host.gateway.tcp_connection import TcpConnection
from kohakuriver.host.gateway.vps_access import VpsAccess

LOGIN_SECONDS = 20
_KEEPALIVE_SECONDS = 30
_TELL_SECONDS = 1.0
# Clients choose by their own order, in which ChaCha20 often stands first, which is slower here; the last one
# is for clients without GCM.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr")
_log = structlog.get_logger(__name__)


class SshGateway:
    """`private_key`: the host key, in OpenSSH's form. `run` serves until it is cancelled.

    `takes_earlier`: whether clients of 1.0 are let in without a login (SSH_PROXY_V1).
    """

    def __init__(self, private_key: str, access: VpsAccess, audit: AuditLog, *, takes_earlier: bool) -> None:
        self._takes_earlier = takes_earlier
        self._key = asyncssh.import_private_key(private_key)
        self._access = access
        self._audit = audit
        self._login_limiter = LoginLimiter()
        self._connections: set[LastingConnection] = set()

    async def run(self, listener: socket.socket) -> None:
        async with asyncio.TaskGroup() as group:
            parts = SshConnectionParts(
                self._access, self._audit, lambda work: group.create_task(_alone(work)), self._connections
            )
            options, earlier = _options(self._key, parts), parts if self._takes_earlier else None
            server = await asyncio.get_running_loop().create_server(
                lambda: TcpConnection(self._login_limiter, options, earlier), sock=listener
            )
            try:
                await self._tell_of_refused()
            finally:
                server.close()
                for connection in tuple(self._connections):
                    connection.end("the host is going down")

    async def _tell_of_refused(self) -> None:
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            turned_away, addresses = self._login_limiter.turned_away()
            if turned_away:
                _log.warning("ssh_connections_turned_away", count=turned_away, addresses=addresses)


async def _alone(work: Coroutine[Any, Any, None]) -> None:
    """What fails in one connection is logged and ends nothing else."""
    try:
        await work
    except Exception:  # noqa: BLE001 - boundary of one connection
        _log.exception("ssh_visit_failed")


def _options(key: asyncssh.SSHKey, parts: SshConnectionParts) -> asyncssh.SSHServerConnectionOptions:
    return asyncssh.SSHServerConnectionOptions(
        server_factory=lambda: SshConnection(parts),
        server_host_keys=[key],
        server_version="KohakuRiver",
        config=None,
        encryption_algs=_CIPHERS,
        compression_algs=["none"],
        login_timeout=LOGIN_SECONDS,
        keepalive_interval=_KEEPALIVE_SECONDS,
        gss_host=None,
        host_based_auth=False,
        allow_pty=False,
        agent_forwarding=False,
        x11_forwarding=False,
    )
