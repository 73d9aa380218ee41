"""What is wanted of this machine's links, addresses and routes, by the overlay of a host or of a runner.

Values that go into the commands of `ip` and `bridge` are checked where they are made: names and MACs are of
the form that they must have, addresses and networks are objects.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from kohakuriver.models.network.overlay import MAX_VXLAN_ID

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_SETTING = re.compile(r"[a-z_]{1,40}")
_MAC = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}")
ALL_MACS = "00:00:00:00:00:00"
"""In an entry of a VXLAN device: where frames to MACs that have no entry go."""


@dataclass(frozen=True, slots=True)
class Marks:
    """How what is ours is known by itself, without a record of what was made.

    `links`: how names of our links begin. `protocol`: the number that our routes carry, and no others.
    `elsewhere`: addresses of ours that are on links of others. `guests`: those of others on our links.
    """

    links: tuple[str, ...]
    protocol: int
    elsewhere: frozenset[IPv4Address] = frozenset()
    guests: frozenset[IPv4Address] = frozenset()

    def __post_init__(self) -> None:
        if not self.links or not all(map(_NAME.fullmatch, self.links)):
            raise ValueError(f"{self.links} begin no names of links")
        if not 5 <= self.protocol <= 255:  # those below are the kernel's and the administrator's
            raise ValueError(f"{self.protocol} is no number for routes of ours")

    def has_link(self, name: str) -> bool:
        return name.startswith(self.links) and _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Bridge:
    """Without spanning tree and VLANs; it learns no MAC from frames between neighbouring switches."""

    name: str
    mac: str
    mtu: int

    kind = "bridge"

    def __post_init__(self) -> None:
        _check_link(self.name, self.mac, self.mtu)


@dataclass(frozen=True, slots=True)
class BridgePort:
    """Being a port of a bridge. `answers`: ARP for neighbours that the bridge knows is not sent on."""

    bridge: str
    learns: bool = False
    floods: bool = False
    answers: bool = False
    isolated: bool = False

    def __post_init__(self) -> None:
        _check_name(self.bridge)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device that learns nothing; where MACs are stands in entries."""

    name: str
    mac: str
    mtu: int
    id: int
    udp_port: int
    local: IPv4Address
    port: BridgePort | None = None

    kind = "vxlan"

    def __post_init__(self) -> None:
        _check_link(self.name, self.mac, self.mtu)
        if not 1 <= self.id <= MAX_VXLAN_ID or not 1 <= self.udp_port <= 65535:
            raise ValueError(f"{self.name}: {self.id} and {self.udp_port} are no VXLAN id and port")


Link = Bridge | Vxlan


@dataclass(frozen=True, slots=True)
class Attachment:
    """A link that somebody else made (the engine, for a workload) is a port of a bridge of ours.

    It is attached where it has no bridge, and never taken from another.
    """

    port: str
    bridge: str

    def __post_init__(self) -> None:
        _check_name(self.port)
        _check_name(self.bridge)


@dataclass(frozen=True, slots=True)
class Address:
    link: str
    interface: IPv4Interface

    def __post_init__(self) -> None:
        _check_name(self.link)


@dataclass(frozen=True, slots=True)
class Route:
    """The gateway is taken to be on the link, whatever addresses the link has."""

    network: IPv4Network
    gateway: IPv4Address
    link: str
    source: IPv4Address | None = None
    metric: int = 0

    def __post_init__(self) -> None:
        _check_name(self.link)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent one: its MAC is not asked for."""

    link: str
    address: IPv4Address
    mac: str

    def __post_init__(self) -> None:
        _check_name(self.link)
        _check_mac(self.mac)


@dataclass(frozen=True, slots=True)
class ForwardingEntry:
    """Where a MAC is: behind a VXLAN device at a machine (`destination`), or behind a port of a bridge."""

    link: str
    mac: str
    destination: IPv4Address | None = None

    def __post_init__(self) -> None:
        _check_name(self.link)
        if self.mac != ALL_MACS or self.destination is None:
            _check_mac(self.mac)


@dataclass(frozen=True, slots=True)
class Setting:
    """A number in `/proc/sys/net/ipv4/conf/<link>/<name>`."""

    link: str
    name: str
    value: int

    def __post_init__(self) -> None:
        _check_name(self.link)
        if not _SETTING.fullmatch(self.name):
            raise ValueError(f"{self.name[:50]!r} is no setting of a link")


@dataclass(frozen=True, slots=True)
class Wanted:
    """All there is to be; what carries the marks and does not stand here is removed."""

    marks: Marks
    links: tuple[Link, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    forwarding: tuple[ForwardingEntry, ...] = ()
    settings: tuple[Setting, ...] = ()

    def __post_init__(self) -> None:
        own = [link.name for link in self.links]
        on_own = [
            *own,
            *(one.link for one in self.neighbours),
            *(one.link for one in self.forwarding),
            *(one.link for one in self.addresses if one.interface.ip not in self.marks.elsewhere),
        ]
        for name in on_own:
            if not self.marks.has_link(name):
                raise ValueError(f"the link {name!r} does not begin as ours do")
        if len(own) != len(set(own)):
            raise ValueError("a link stands there twice")


def _check_link(name: str, mac: str, mtu: int) -> None:
    _check_name(name)
    _check_mac(mac)
    if not 68 <= mtu <= 65535:
        raise ValueError(f"{mtu} is no MTU for {name}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is no name of a link")


def _check_mac(mac: str) -> None:
    if not _MAC.fullmatch(mac) or mac == ALL_MACS:
        raise ValueError(f"{mac[:40]!r} is no MAC of one station")
