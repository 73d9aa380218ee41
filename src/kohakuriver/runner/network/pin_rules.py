"""The rules that pin each port of the workloads' bridge to one MAC and one IPv4 address; pure.

A table of family `bridge`. A frame from a pinned port passes if it is IPv4 or ARP and says the port's own
addresses, as its sender and inside; everything else is dropped, IPv6 too, which our networks do not have. So
no workload takes the gateway's or another's address, whatever rights it has over its own network. A port that
is not pinned (of a container that somebody put onto the network by hand) is free in what it says but for the
addresses of pinned ports and the gateway's. Rules look up sets: they cost the same for any number of ports.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

FAMILY = "bridge"
_PORT = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")
Elements = dict[str, frozenset[str]]

# Before everything else that looks at bridged frames. Those to 01:80:c2:00:00:0x skip the first chain, and a
# bridge learns from them where a MAC is.
_RULES = """\
  chain from_pinned {
    ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 \
iifname . ether saddr . arp saddr ip @pinned iifname . arp saddr ether . arp saddr ip @pinned accept
    ether type ip iifname . ether saddr . ip saddr @pinned accept
    drop
  }
  chain from_others {
    ether type arp arp saddr ip @addresses drop
    ether type ip ip saddr @addresses drop
  }
  chain arriving {
    type filter hook prerouting priority -310; policy accept;
    iifname @ports goto from_pinned
  }
  chain to_node {
    type filter hook input priority -310; policy accept;
    iifname @ports ether daddr 01:80:c2:00:00:00-01:80:c2:00:00:0f drop
    iifname != @ports jump from_others
  }
  chain between_ports {
    type filter hook forward priority -310; policy accept;
    oifname @ports iifname != @ports jump from_others
  }
"""
_TYPES = {
    "ports": "ifname",
    "addresses": "ipv4_addr",
    "pinned": "ifname . ether_addr . ipv4_addr",
}


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the bridge (its name on the node) and the addresses of the sandbox behind it."""

    name: str
    mac: str
    address: str


def checked_port(name: str, mac: str, address: str) -> Port:
    """Raises ValueError for what is none."""
    if not _PORT.fullmatch(name) or not _MAC.fullmatch(mac.lower()):
        raise ValueError(f"{name[:40]!r} with {mac[:40]!r} is no port of a bridge")
    return Port(name, mac.lower(), str(IPv4Address(address)))


def elements_of(ports: Iterable[Port], gateway: str) -> Elements:
    """What each set holds, in the form of `nft -j`, concatenations with ` . ` between."""
    listed = list(ports)
    return {
        "ports": frozenset(port.name for port in listed),
        "addresses": frozenset({gateway, *(port.address for port in listed)}),
        "pinned": frozenset(f"{port.name} . {port.mac} . {port.address}" for port in listed),
    }


def whole_table(table: str, wanted: Elements) -> str:
    """Commands that make the table, or make it anew."""
    sets = "".join(f"  set {name} {{ type {kind}; }}\n" for name, kind in _TYPES.items())
    made = f"table {FAMILY} {table}\ndelete table {FAMILY} {table}\n"
    made += f"table {FAMILY} {table} {{\n{sets}{_RULES}}}\n"
    return made + _commands("add", table, wanted)


def changes(table: str, before: Elements, wanted: Elements) -> str:
    """Commands for the difference; "" where there is none."""
    gone = {name: before[name] - wanted[name] for name in wanted}
    new = {name: wanted[name] - before[name] for name in wanted}
    return _commands("delete", table, gone) + _commands("add", table, new)


def _commands(verb: str, table: str, elements: Mapping[str, frozenset[str]]) -> str:
    lines = []
    for name, members in elements.items():
        if members:
            written = ", ".join(_written(name, member) for member in sorted(members))
            lines.append(f"{verb} element {FAMILY} {table} {name} {{ {written} }}\n")
    return "".join(lines)


def _written(set_name: str, member: str) -> str:
    """Names of interfaces are quoted: they may look like numbers or words of the language."""
    if set_name == "addresses":
        return member
    port, *rest = member.split(" . ")
    return " . ".join([f'"{port}"', *rest])
