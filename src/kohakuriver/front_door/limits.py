"""The limits of a front door."""

import ipaddress
import resource
from contextlib import suppress
from dataclasses import dataclass

_SHARE_OF_OPEN_FILES = 4


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`stranger_…`: for what has proven no credential.

    `head_bytes`: request line and headers together, also whatever stands between two pieces of a body
    (chunk headers, trailers), and what comes over a WebSocket before it has proven a credential.
    `body_grace_seconds` and `body_bytes_per_second`: a stranger's body may take the first, and longer in the
    measure of what has come. `silence_seconds`: how long a body of somebody with a credential may stand
    still. `connections_per_caller`: of one that has proven who it is. `narrow_network`: an address in there
    is no crowd behind a router, so it has only `stranger_connections_if_narrow`.
    """

    head_bytes: int = 32 << 10
    headers: int = 100
    head_seconds: float = 10.0
    body_grace_seconds: float = 10.0
    body_bytes_per_second: int = 16 << 10
    silence_seconds: float = 120.0
    unread_answer_seconds: float = 30.0
    idle_seconds: float = 90.0
    pipelined: int = 16
    stranger_connections: int = 4096
    stranger_connections_per_address: int = 2048
    narrow_network: ipaddress.IPv4Network | None = None
    stranger_connections_if_narrow: int = 16
    connections_per_caller: int = 4096
    stranger_bytes: int = 32 << 20
    stranger_bytes_per_address: int = 16 << 20

    def connections_in_all(self) -> int:
        """Never so many that strangers take the descriptors which the rest of the process needs."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return self.stranger_connections
        return max(1, min(self.stranger_connections, soft // _SHARE_OF_OPEN_FILES))

    def connections_of(self, group: str) -> int:
        """How many an address may have that has proven nothing; `group`: see `address_group`."""
        if self.narrow_network is not None:
            with suppress(ValueError):
                if ipaddress.IPv4Address(group) in self.narrow_network:
                    return self.stranger_connections_if_narrow
        return self.stranger_connections_per_address
