"""The gateway as the host holds it: key and port from the start, the SSH library from the first client on.

Most hosts are not entered by SSH, and the library costs 9 MiB of memory.
"""

import asyncio
import importlib
import socket
from typing import TYPE_CHECKING

from kohakuriver.descriptors import until_readable
from kohakuriver.host.audit import AuditLog
from kohakuriver.host.gateway.vps_access import VpsAccess
from kohakuriver.host.ssh_key_pairs import SshKeyPair

if TYPE_CHECKING:
    from kohakuriver.host.gateway.gateway import SshGateway


class LateGateway:
    """`port`: where users reach it; `key`: its host key. `run` serves until it is cancelled.

    `takes_earlier`: see `SshGateway`.
    """

    def __init__(
        self, port: int, key: SshKeyPair, access: VpsAccess, audit: AuditLog, *, takes_earlier: bool = False
    ) -> None:
        self._takes_earlier = takes_earlier
        self.port = port
        self._key = key
        self._access = access
        self._audit = audit

    @property
    def public_key(self) -> str:
        """The host key, as `type base64`."""
        return self._key.public

    async def run(self, listener: socket.socket) -> None:
        await until_readable(listener.fileno())  # somebody connects; the gateway takes the connection
        module = await asyncio.to_thread(importlib.import_module, "kohakuriver.host.gateway.gateway")
        gateway: SshGateway = module.SshGateway(
            self._key.private, self._access, self._audit, takes_earlier=self._takes_earlier
        )
        await gateway.run(listener)
