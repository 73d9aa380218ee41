"""What there is of links, addresses and routes, as `ip` and `bridge` show it, and settings of links.

A look costs two processes. What cannot be read as one of ours (IPv6, entries of other kinds) is left out; all
links and all routes of the main table are there, so that what is in the way can be named.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from kohakuriver.network.programs import NetworkFault, run_for_json
from kohakuriver.network.wanted import Address, ForwardingEntry, Neighbour, Setting

SETTINGS = Path("/proc/sys/net/ipv4/conf")
_QUESTIONS = "addr show\nroute show\nneigh show nud permanent\n"
_ANSWERS = 4  # one to each question, and what the bridges know
_DEFAULT = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True)
class FoundLink:
    """`data`: what is particular to its kind; `port`: to being a port of a bridge. As `ip` names it."""

    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    is_up: bool = False
    master: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    port: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FoundRoute:
    """`link` is "" where it leads nowhere; `mtu` is 0 where the link's counts."""

    network: IPv4Network
    link: str
    gateway: IPv4Address | None = None
    source: IPv4Address | None = None
    metric: int = 0
    protocol: int = 0
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """`addresses` are in the kernel's order: one that comes after another of its network goes with that."""

    links: Mapping[str, FoundLink] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    routes: tuple[FoundRoute, ...] = ()
    neighbours: frozenset[Neighbour] = frozenset()
    forwarding: frozenset[ForwardingEntry] = frozenset()
    settings: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def without(self, gone: Collection[str]) -> "Found":
        """What is left once these links are removed: all that is on them goes, and their ports are free."""
        links = {
            link.name: replace(link, master="", port={}) if link.master in gone else link
            for link in self.links.values()
            if link.name not in gone
        }
        freed = {name for name, link in links.items() if link != self.links[name]}
        return Found(
            links,
            tuple(one for one in self.addresses if one.link not in gone),
            tuple(one for one in self.routes if one.link not in gone),
            frozenset(one for one in self.neighbours if one.link not in gone),
            frozenset(
                one
                for one in self.forwarding
                if one.link not in gone and (one.destination is not None or one.link not in freed)
            ),
            {(link, name): value for (link, name), value in self.settings.items() if link not in gone},
        )


async def look(settings: Iterable[Setting]) -> Found:
    """Look at what there is, and at these settings; raises NetworkFault."""
    answers = await run_for_json("ip", "-j", "-d", "-N", "-batch", "-", text=_QUESTIONS)
    answers += await run_for_json("bridge", "-j", "fdb", "show")
    if len(answers) != _ANSWERS or not all(isinstance(answer, list) for answer in answers):
        raise NetworkFault("ip and bridge have not shown all that they were asked for")
    try:
        return _read(answers, _settings(settings))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise NetworkFault(f"what ip and bridge have shown cannot be read: {error!r}") from error


def _read(answers: list[list[dict[str, Any]]], settings: Mapping[tuple[str, str], int]) -> Found:
    # Some versions show an empty row for what they leave out.
    links, routes, neighbours, forwarding = ([row for row in answer if row] for answer in answers)
    return Found(
        {link.name: link for link in map(_link, links)},
        tuple(_addresses(links)),
        tuple(_routes(routes)),
        frozenset(_neighbours(neighbours)),
        frozenset(_forwarding(forwarding)),
        settings,
    )


def _link(row: Mapping[str, Any]) -> FoundLink:
    info = row.get("linkinfo", {})
    return FoundLink(
        row["ifname"],
        info.get("info_kind", ""),
        row.get("address", ""),
        row.get("mtu", 0),
        "UP" in row.get("flags", ()),
        row.get("master", ""),
        info.get("info_data", {}),
        info.get("info_slave_data", {}),
    )


def _addresses(rows: Iterable[Mapping[str, Any]]) -> Iterable[Address]:
    for row in rows:
        for info in row.get("addr_info", ()):
            if info.get("family") != "inet" or "local" not in info:
                continue
            try:
                yield Address(row["ifname"], IPv4Interface(f"{info['local']}/{info['prefixlen']}"))
            except ValueError:
                continue  # on a link with a name of another kind than ours


def _routes(rows: Iterable[Mapping[str, Any]]) -> Iterable[FoundRoute]:
    for row in rows:
        hops = row.get("nexthops") or [row]
        yield FoundRoute(
            _DEFAULT if row["dst"] == "default" else IPv4Network(row["dst"]),
            hops[0].get("dev", ""),
            _address(row.get("gateway")),
            _address(row.get("prefsrc")),
            row.get("metric", 0),
            int(row.get("protocol", 0)),
            next((metrics["mtu"] for metrics in row.get("metrics", ()) if "mtu" in metrics), 0),
        )


def _neighbours(rows: Iterable[Mapping[str, Any]]) -> Iterable[Neighbour]:
    for row in rows:
        address = _address(row.get("dst"))
        if address is not None and "lladdr" in row:
            try:
                yield Neighbour(row["dev"], address, row["lladdr"])
            except ValueError:
                continue  # with an address of many stations: it is none of ours


def _forwarding(rows: Iterable[Mapping[str, Any]]) -> Iterable[ForwardingEntry]:
    """Those that somebody wrote, without the bridges' own MACs; of one with VLANs, what is without any."""
    for row in rows:
        is_own = "dst" in row and "self" in row.get("flags", ())
        is_bridges = "master" in row and row.get("state") == "static" and "vlan" not in row
        destination = _address(row.get("dst"))
        if not is_bridges and (not is_own or destination is None):
            continue
        try:
            yield ForwardingEntry(row["ifname"], row["mac"], destination)
        except ValueError:
            continue  # of many stations: it is none of ours


def _address(text: str | None) -> IPv4Address | None:
    try:
        return IPv4Address(text) if text else None
    except AddressValueError:
        return None


def _settings(wanted: Iterable[Setting]) -> dict[tuple[str, str], int]:
    found = {}
    for one in wanted:
        try:
            found[one.link, one.name] = int((SETTINGS / one.link / one.name).read_text())
        except (OSError, ValueError):
            continue  # of a link that is yet to be made; what the kernel does not have shows when it is set
    return found
