"""What is against a network of ours on this machine: a route into it, a path that carries too little; pure.

The sentences name the setting and what is in its way. Only the main table of routes counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from kohakuriver.models.errors import InvalidInput
from kohakuriver.network.found import Found, FoundRoute
from kohakuriver.network.wanted import Marks

VXLAN_BYTES = 50
"""What VXLAN over IPv4 puts before a packet: the inner frame's header, its own, UDP's and IP's."""


@dataclass(frozen=True, slots=True)
class Path:
    """The path of packets to a machine, as far as this one knows it."""

    link: str
    mtu: int


def check_subnet(subnet: IPv4Network, found: Found, ours: Iterable[Marks], setting: str) -> None:
    """Raise InvalidInput if a route of somebody else leads into the subnet; a default route is in no way."""
    ours = list(ours)
    for route in found.routes:
        is_ours = any(_carries(route, marks) for marks in ours)
        if route.network.prefixlen and route.network.overlaps(subnet) and not is_ours:
            raise InvalidInput(
                f"{setting} {subnet} overlaps the route {route.network} of this machine "
                f"(interface {route.link or 'none'}); choose a subnet that no route covers, the same for "
                "host and runners",
                field=setting,
            )


def _carries(route: FoundRoute, marks: Marks) -> bool:
    return marks.has_link(route.link) or route.protocol == marks.protocol


def check_mtu(mtu: int, endpoints: Iterable[IPv4Address], found: Found, setting: str) -> None:
    """Raise InvalidInput if packets of this size, inside VXLAN, are too large for the way to an endpoint."""
    for endpoint in endpoints:
        path = path_to(endpoint, found)
        if path is not None and path.mtu < mtu + VXLAN_BYTES:
            raise InvalidInput(
                f"{setting} {mtu} needs {mtu + VXLAN_BYTES} bytes, {VXLAN_BYTES} of them for VXLAN, and the "
                f"path to {endpoint} (interface {path.link}) carries {path.mtu}; set it to "
                f"{path.mtu - VXLAN_BYTES} or less, the same for host and runners",
                field=setting,
            )


def path_to(endpoint: IPv4Address, found: Found) -> Path | None:
    """None where no route leads there, or where it is not known by which link."""
    leading = [route for route in found.routes if endpoint in route.network]
    if not leading:
        return None
    route = max(leading, key=lambda route: (route.network.prefixlen, -route.metric))
    link = found.links.get(route.link)
    return Path(link.name, route.mtu or link.mtu) if link is not None else None
