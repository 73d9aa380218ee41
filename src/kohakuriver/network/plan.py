"""What to do about links, addresses and routes, from what there is and what is wanted; pure.

Nothing is done where all is as wanted. What can be changed is changed in place. A link that cannot be
(another kind, another VXLAN id) is removed and made anew, with all that was on it, and its ports are attached
again. Links, addresses, routes and entries of others are left as they are.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kohakuriver.network.found import Found, FoundLink, FoundRoute
from kohakuriver.network.wanted import (
    ALL_MACS,
    Address,
    Bridge,
    BridgePort,
    ForwardingEntry,
    Link,
    Neighbour,
    Route,
    Setting,
    Vxlan,
    Wanted,
)

_KINDS_OF_ATTACHED = frozenset({"veth", "tun"})
_BRIDGE_DATA = {"stp_state": 0, "no_linklocal_learn": 1, "vlan_filtering": 0}
# Of a VXLAN device that leads elsewhere than its entries say.
_DATA_OF_OTHERS = frozenset({"remote", "remote6", "group", "group6", "external", "link"})


@dataclass(frozen=True, slots=True)
class Command:
    """A line for `ip` or `bridge`; `subject` is for sentences about it."""

    line: str
    subject: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Commands for `ip`, then settings, then commands for `bridge`.

    `obstacles`: sentences about what cannot be, since something of others is in the way.
    """

    links: tuple[Command, ...] = ()
    settings: tuple[Setting, ...] = ()
    forwarding: tuple[Command, ...] = ()
    obstacles: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.links or self.settings or self.forwarding)

    @property
    def subjects(self) -> list[str]:
        """What is changed, each once."""
        named = [command.subject for command in (*self.links, *self.forwarding)]
        return list(dict.fromkeys([*named, *map(subject_of_setting, self.settings)]))


def plan(found: Found, wanted: Wanted) -> Plan:
    """What is in the way of one thing keeps none of the others from being done."""
    gone = _gone(found, wanted)
    left = found.without(gone)
    obstacles = _obstacles(left.routes, wanted)
    wanted = replace(wanted, routes=tuple(route for route in wanted.routes if route not in obstacles))
    touched = {one.link for one in _unwanted_addresses(left, wanted)}
    links = [
        *(Command(f"link del dev {name}", f"the link {name}") for name in sorted(gone)),
        *(
            command
            for link in _bridges_first(wanted.links)
            for command in _link(left.links.get(link.name), link)
        ),
        *_removals(left, wanted),
        *_addresses(left, wanted, touched),
        *_neighbours(left, wanted, touched),
        *_routes(left, wanted, touched),
        *_attachments(left, wanted),
    ]
    settings = (one for one in wanted.settings if left.settings.get((one.link, one.name)) != one.value)
    return Plan(tuple(links), tuple(settings), tuple(_forwarding(left, wanted)), tuple(obstacles.values()))


def subject_of_setting(setting: Setting) -> str:
    return f"the setting {setting.name} of {setting.link}"


def _obstacles(routes: Iterable[FoundRoute], wanted: Wanted) -> dict[Route, str]:
    """A route of ours is written with `replace`, which would replace another's to the same network."""
    places = {(one.network, one.metric): one for one in wanted.routes}
    found = {}
    for route in routes:
        ours = places.get((route.network, route.metric))
        if ours is not None and route.protocol != wanted.marks.protocol:
            found[ours] = (
                f"the route {route.network} of this machine (interface {route.link or 'none'}) is in the way "
                f"of the one by {ours.link}; remove it, or choose another network"
            )
    return found


def _gone(found: Found, wanted: Wanted) -> set[str]:
    """Links of ours that are not wanted, or cannot become what is wanted."""
    links = {link.name: link for link in wanted.links}
    return {
        link.name
        for link in found.links.values()
        if wanted.marks.has_link(link.name)
        and (link.name not in links or not _can_become(link, links[link.name]))
    }


def _bridges_first(links: Iterable[Link]) -> list[Link]:
    return sorted(links, key=lambda link: not isinstance(link, Bridge))


def _can_become(found: FoundLink, wanted: Link) -> bool:
    if found.kind != wanted.kind:
        return False
    if isinstance(wanted, Bridge):
        return True
    identity = {"id": wanted.id, "port": wanted.udp_port, "local": str(wanted.local), "learning": False}
    is_same = all(found.data.get(name) == value for name, value in identity.items())
    return is_same and not _DATA_OF_OTHERS & found.data.keys()


def _link(found: FoundLink | None, wanted: Link) -> Iterator[Command]:
    """A bridge's MTU is set once it is there: one that it was made with follows that of its ports."""
    subject = _subject(wanted)
    name = wanted.name
    if found is None:
        yield Command(f"link add name {name} address {wanted.mac} type {_made_as(wanted)}", subject)
        found = FoundLink(name, wanted.kind, wanted.mac)
    if found.mac != wanted.mac:
        yield Command(f"link set dev {name} address {wanted.mac}", f"the MAC of {subject}")
    if found.mtu != wanted.mtu:
        yield Command(f"link set dev {name} mtu {wanted.mtu}", f"the MTU {wanted.mtu} of {subject}")
    yield from _bridge(found, subject) if isinstance(wanted, Bridge) else _port(found, wanted.port, subject)
    if not found.is_up:
        yield Command(f"link set dev {name} up", subject)


def _made_as(link: Link) -> str:
    if isinstance(link, Bridge):
        return "bridge stp_state 0 no_linklocal_learn 1"
    return f"vxlan id {link.id} dstport {link.udp_port} local {link.local} nolearning"


def _subject(link: Link) -> str:
    if isinstance(link, Vxlan):
        return f"the VXLAN device {link.name} (id {link.id}, port {link.udp_port})"
    return f"the bridge {link.name}"


def _bridge(found: FoundLink, subject: str) -> Iterator[Command]:
    """One that was just made has all of it, and a kernel without VLANs takes no word about them."""
    for option, value in _BRIDGE_DATA.items():
        if found.data.get(option, value) != value:
            line = f"link set dev {found.name} type bridge {option} {value}"
            yield Command(line, f"the setting {option} of {subject}")


def _port(found: FoundLink, wanted: BridgePort | None, subject: str) -> Iterator[Command]:
    if wanted is None:
        if found.master:
            yield Command(f"link set dev {found.name} nomaster", f"{subject}, which is a port of no bridge")
        return
    is_attached = found.master == wanted.bridge
    if not is_attached:
        line = f"link set dev {found.name} master {wanted.bridge}"
        yield Command(line, f"{subject} as a port of {wanted.bridge}")
    options = _port_options(wanted)
    if not is_attached or any(found.port.get(name) != value for name, value in options.items()):
        words = " ".join(f"{name} {'on' if value else 'off'}" for name, value in options.items())
        line = f"link set dev {found.name} type bridge_slave {words}"
        yield Command(line, f"{subject} as a port of {wanted.bridge}")


def _port_options(port: BridgePort) -> dict[str, bool]:
    return {
        "learning": port.learns,
        "flood": port.floods,
        "mcast_flood": port.floods,
        "bcast_flood": port.floods,
        "neigh_suppress": port.answers,
        "isolated": port.isolated,
    }


def _removals(left: Found, wanted: Wanted) -> Iterator[Command]:
    """Addresses last, in the order that takes away no more than one at a time."""
    kept = {(one.link, one.address) for one in wanted.neighbours}
    for neighbour in sorted(left.neighbours, key=str):
        if wanted.marks.has_link(neighbour.link) and (neighbour.link, neighbour.address) not in kept:
            line = f"neigh del {neighbour.address} dev {neighbour.link}"
            yield Command(line, _subject_of_neighbour(neighbour))
    for route in _unwanted_routes(left, wanted):
        way = f"via {route.gateway} dev {route.link} " if route.gateway else ""
        line = f"route del {route.network} {way}metric {route.metric} proto {route.protocol}"
        yield Command(line, f"the route {route.network} by {route.link or 'no link'}")
    for address in reversed(_unwanted_addresses(left, wanted)):
        line = f"addr del {address.interface} dev {address.link}"
        yield Command(line, f"the address {address.interface} of {address.link}")


def _unwanted_addresses(left: Found, wanted: Wanted) -> list[Address]:
    marks = wanted.marks
    return [
        one
        for one in left.addresses
        if one not in wanted.addresses
        and (
            (marks.has_link(one.link) and one.interface.ip not in marks.guests)
            or one.interface.ip in marks.elsewhere
        )
    ]


def _unwanted_routes(left: Found, wanted: Wanted) -> Iterator[FoundRoute]:
    """Without those that a wanted route replaces: one of each network and metric."""
    own = [one for one in left.routes if one.protocol == wanted.marks.protocol]
    there = set(map(_as_wanted, own))
    replaced = {(one.network, one.metric) for one in wanted.routes if one not in there}
    for found in own:
        place = (found.network, found.metric)
        if place in replaced:
            replaced.remove(place)
        elif _as_wanted(found) not in wanted.routes:
            yield found


def _addresses(left: Found, wanted: Wanted, touched: Collection[str]) -> Iterator[Command]:
    """With an address go those of its network that came after it, so all of such a link are written again."""
    for one in wanted.addresses:
        if one not in left.addresses or one.link in touched:
            line = f"addr replace {one.interface} dev {one.link}"
            yield Command(line, f"the address {one.interface} of {one.link}")


def _neighbours(left: Found, wanted: Wanted, touched: Collection[str]) -> Iterator[Command]:
    """Those of a link go with its last address."""
    for one in wanted.neighbours:
        if one not in left.neighbours or one.link in touched:
            line = f"neigh replace {one.address} lladdr {one.mac} dev {one.link} nud permanent"
            yield Command(line, _subject_of_neighbour(one))


def _subject_of_neighbour(neighbour: Neighbour) -> str:
    return f"the neighbour {neighbour.address} on {neighbour.link}"


def _routes(left: Found, wanted: Wanted, touched: Collection[str]) -> Iterator[Command]:
    """Routes of a link go with its last address, and those with a source with that."""
    there = {_as_wanted(one) for one in left.routes if one.protocol == wanted.marks.protocol}
    for one in wanted.routes:
        is_gone = one.link in touched or (one.source is not None and touched)
        if one not in there or is_gone:
            source = f" src {one.source}" if one.source is not None else ""
            line = f"route replace {one.network} via {one.gateway} dev {one.link} onlink{source}"
            subject = f"the route {one.network} by {one.link}"
            yield Command(f"{line} metric {one.metric} proto {wanted.marks.protocol}", subject)


def _as_wanted(found: FoundRoute) -> Route | None:
    """None for what is never wanted: a route that leads nowhere, or by a link of a strange name."""
    try:
        return (
            Route(found.network, found.gateway, found.link, found.source, found.metric)
            if found.gateway
            else None
        )
    except ValueError:
        return None


def _attachments(left: Found, wanted: Wanted) -> Iterator[Command]:
    """Last, since such a link may go at any time."""
    for one in wanted.attachments:
        link = left.links.get(one.port)
        if link is not None and link.kind in _KINDS_OF_ATTACHED and not link.master:
            subject = f"{one.port} as a port of {one.bridge}"
            yield Command(f"link set dev {one.port} master {one.bridge}", subject)


def _forwarding(left: Found, wanted: Wanted) -> Iterator[Command]:
    fresh = _newly_attached(left, wanted)
    there = {one for one in left.forwarding if one.destination is not None or one.link not in fresh}
    kept = {_place(one) for one in wanted.forwarding}
    own = (one for one in there if wanted.marks.has_link(one.link))
    for one in sorted(own, key=str):
        if _place(one) not in kept:
            behind = f"dst {one.destination} self" if one.destination is not None else "master"
            yield Command(f"fdb del {one.mac} dev {one.link} {behind}", _subject_of_entry(one))
    for one in wanted.forwarding:
        if one not in there:
            verb = "append" if one.mac == ALL_MACS else "replace"
            behind = (
                f"dst {one.destination} self permanent" if one.destination is not None else "master static"
            )
            yield Command(f"fdb {verb} {one.mac} dev {one.link} {behind}", _subject_of_entry(one))


def _newly_attached(left: Found, wanted: Wanted) -> set[str]:
    """Devices that come to another bridge or to none; the one that they leave forgets their entries."""
    devices = [link for link in wanted.links if isinstance(link, Vxlan)]
    bridges = {device.name: device.port.bridge if device.port else "" for device in devices}
    return {
        name for name, bridge in bridges.items() if name in left.links and left.links[name].master != bridge
    }


def _place(entry: ForwardingEntry) -> tuple[Any, ...]:
    """Entries of one place replace each other; of those for all MACs there may be several."""
    if entry.mac == ALL_MACS or entry.destination is None:
        return (entry,)
    return (entry.link, entry.mac)


def _subject_of_entry(entry: ForwardingEntry) -> str:
    behind = f"at {entry.destination}" if entry.destination is not None else "on its bridge"
    return f"the entry {entry.mac} of {entry.link} ({behind})"
