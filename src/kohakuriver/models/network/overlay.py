"""Overlay arithmetic: `BASE/NETWORK_BITS/NODE_BITS/SUBNET_BITS`, cut into one network per runner.

With `10.128.0.0/12/6/14`, runner *i* (1 to 63) has `BASE + (i << 14)`/18. In it `.1` is the runner's bridge
and `.254` the host; the host is also at `BASE + 1`. The network of number 0 belongs to no runner.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from kohakuriver.models.errors import InvalidInput

MAX_VXLAN_ID = (1 << 24) - 1

_FORM = re.compile(
    r"(?P<base>[0-9.]{7,15})/(?P<network>[0-9]{1,2})/(?P<node>[0-9]{1,2})/(?P<subnet>[0-9]{1,2})"
)
_BRIDGE = 1
_HOST = 254


@dataclass(frozen=True, slots=True)
class OverlaySubnet:
    """The address plan of a cluster's overlay; made by `parse_overlay_subnet`."""

    base: IPv4Address
    network_bits: int
    node_bits: int
    subnet_bits: int

    def __str__(self) -> str:
        return f"{self.base}/{self.network_bits}/{self.node_bits}/{self.subnet_bits}"

    @property
    def network(self) -> IPv4Network:
        """All of the overlay."""
        return IPv4Network((self.base, self.network_bits))

    @property
    def max_runner(self) -> int:
        """The highest runner number; the lowest is 1."""
        return (1 << self.node_bits) - 1

    @property
    def host_address(self) -> IPv4Address:
        """The host's own address in the overlay."""
        return self.base + 1

    def runner_network(self, runner: int) -> IPv4Network:
        """Network of runner number `runner`; raises ValueError outside 1 to `max_runner`."""
        if not 1 <= runner <= self.max_runner:
            raise ValueError(f"runner number {runner} is not within 1 to {self.max_runner}")
        return IPv4Network((self.base + (runner << self.subnet_bits), 32 - self.subnet_bits))

    def bridge_address(self, runner: int) -> IPv4Address:
        """The runner's bridge: gateway of its workloads, and where they reach the runner."""
        return self.runner_network(runner).network_address + _BRIDGE

    def host_address_on(self, runner: int) -> IPv4Address:
        """The host's address within the runner's network."""
        return self.runner_network(runner).network_address + _HOST

    def is_for_workloads(self, runner: int, address: IPv4Address) -> bool:
        """Tell whether a workload of this runner may have the address."""
        network = self.runner_network(runner)
        taken = (
            network.network_address,
            network.broadcast_address,
            self.bridge_address(runner),
            self.host_address_on(runner),
        )
        return address in network and address not in taken

    def runner_of(self, address: IPv4Address) -> int | None:
        """Number of the runner in whose network the address lies; None outside all of them."""
        if address not in self.network:
            return None
        return (int(address) - int(self.base)) >> self.subnet_bits or None

    def vxlan_id(self, first_id: int, runner: int) -> int:
        """VXLAN id of a runner's link; `first_id` is OVERLAY_VXLAN_ID. Raises ValueError past 24 bits."""
        self.runner_network(runner)
        if not 1 <= first_id <= MAX_VXLAN_ID - runner:
            raise ValueError(f"VXLAN id {first_id} + {runner} is not within 1 to {MAX_VXLAN_ID}")
        return first_id + runner


def parse_overlay_subnet(text: str) -> OverlaySubnet:
    """Read the form of OVERLAY_SUBNET; raises InvalidInput that says which part of it is wrong."""
    match = _FORM.fullmatch(text)
    if match is None or not text.isascii():
        raise InvalidInput("it is not of the form BASE/NETWORK_BITS/NODE_BITS/SUBNET_BITS")
    network, node, subnet = (int(match[part]) for part in ("network", "node", "subnet"))
    if network + node + subnet != 32:
        raise InvalidInput(f"{network} + {node} + {subnet} bits are {network + node + subnet}, not 32")
    if network < 1 or node < 1:
        raise InvalidInput("NETWORK_BITS and NODE_BITS must be at least 1")
    if subnet < 8:
        raise InvalidInput("SUBNET_BITS must be at least 8, as .254 of each runner's network is the host's")
    try:
        base = IPv4Address(match["base"])
    except ValueError as error:
        raise InvalidInput(f"{match['base']} is not an IPv4 address") from error
    if int(base) & ((1 << (32 - network)) - 1):
        raise InvalidInput(f"{base} has bits set behind its first {network}")
    return OverlaySubnet(base, network, node, subnet)
