"""Routes as the kernel lists them in `/proc/net/route`."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

ROUTE_TABLE = "/proc/net/route"
_ROUTE_UP = 0x1


@dataclass(frozen=True, slots=True)
class Route:
    interface: str
    network: IPv4Network


def parse_routes(table: str) -> list[Route]:
    """Read the table: addresses are little-endian hexadecimal."""
    routes = []
    for line in table.splitlines()[1:]:
        cells = line.split()
        if len(cells) >= 8 and int(cells[3], 16) & _ROUTE_UP:
            address, mask = (IPv4Address(bytes.fromhex(cells[at])[::-1]) for at in (1, 7))
            routes.append(Route(cells[0], IPv4Network(f"{address}/{mask}", strict=False)))
    return routes


def overlapping(routes: Iterable[Route], subnet: IPv4Network, own: str | None = None) -> Route | None:
    """The first route that leads elsewhere than through the interface `own`; a default route is in no way."""
    for route in routes:
        if route.interface != own and route.network.prefixlen and route.network.overlaps(subnet):
            return route
    return None
