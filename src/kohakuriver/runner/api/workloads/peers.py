"""Which table of routes answers a connection: that of workloads, or the host's.

Only the address at the other end counts. A connection of this machine cannot come from a foreign
one, and the bridge lets no workload take another's (`network.pin_rules`). Nothing that a request says is
looked at, so nothing that it says leads from one table into the other.
"""

import ipaddress
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class WorkloadNetwork:
    """Where workloads of this node have their addresses, and reach its runner at `gateway`."""

    subnet: ipaddress.IPv4Network
    gateway: ipaddress.IPv4Address

    @classmethod
    def of(cls, subnet: str, gateway: str) -> "WorkloadNetwork":
        return cls(ipaddress.IPv4Network(subnet), ipaddress.IPv4Address(gateway))

    def holds(self, text: str) -> bool:
        """Whether a workload can be at this address. The gateway's is the node itself."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else address
        return plain is not None and plain != self.gateway and plain in self.subnet


def peer_address(scope: Scope) -> str:
    """The address at the other end, that of IPv4 in its own form; "" where there is none."""
    text = str((scope.get("client") or ("",))[0])
    return text.removeprefix("::ffff:") if "." in text else text


class TablesByPeer:
    """Pure ASGI: `workloads` answers those on the network, `others` everybody else."""

    def __init__(self, network: WorkloadNetwork, workloads: ASGIApp, others: ASGIApp) -> None:
        self._network = network
        self._workloads = workloads
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_workload = self._network.holds(peer_address(scope))
        await (self._workloads if is_workload else self._others)(scope, receive, send)
