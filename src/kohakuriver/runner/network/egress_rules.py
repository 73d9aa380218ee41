"""The rules that close places to workloads (`WORKLOAD_EGRESS_DENY`); pure but for looking up the host.

A table of family `inet`, which sees what comes from the workloads' bridge, on its way through the node and
into it. It closes connections that workloads open, and not answers to those that others open to them. What a
destination was before the node translated it counts as well as what it is afterwards. What is refused is
refused at once, so that nobody waits for an answer.
"""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.models.network.egress import CONTROL, METADATA, NAMES, Network, Place, parse_place

FAMILY = "inet"
_ADDRESSES = Path("/proc/net/fib_trie")
# Where clouds give their machines credentials and settings. Port 53 is left open: with some of them the same
# address is the name server.
_METADATA = (
    "169.254.169.254",  # most of them
    "169.254.170.2",  # credentials of containers and pods at AWS
    "169.254.170.23",
    "168.63.129.16",  # Azure
    "100.100.100.200",  # Alibaba
    "192.0.0.192",  # Oracle
    "fd00:ec2::254",  # AWS
    "fd00:ec2::23",
    "fd20:ce::254",  # Google
)
_HOST_SSH_PORT = 8002
_DNS_PORT = 53
_HAS_PORTS = "meta l4proto { tcp, udp, sctp, dccp }"


@dataclass(frozen=True, slots=True)
class EgressSettings:
    """`deny`: entries of WORKLOAD_EGRESS_DENY. `host`: the host's name or address.

    `endpoints_at`: the address at which workloads reach the runner's port all the same; "": nowhere.
    """

    deny: tuple[str, ...] = ()
    runner_port: int = 8001
    host: str = "127.0.0.1"
    host_port: int = 8000
    endpoints_at: str = ""


@dataclass(frozen=True, slots=True)
class Closed:
    """What the settings mean now. `node_ports` are closed on every address of the node itself.

    `but`: address and port of the node that stay open, where no translation leads elsewhere.
    """

    places: tuple[Place, ...] = ()
    metadata: bool = False
    node_ports: frozenset[int] = frozenset()
    but: tuple[str, int] | None = None


def closed_places(
    settings: EgressSettings, host_addresses: Iterable[str], own_addresses: Iterable[str] = ()
) -> Closed:
    """What the settings mean while the host, and the node itself, have these addresses."""
    places = [parse_place(text) for text in settings.deny if text not in NAMES]
    but = (settings.endpoints_at, settings.runner_port) if settings.endpoints_at else None
    if CONTROL not in settings.deny:
        return Closed(tuple(places), METADATA in settings.deny, but=but)
    addresses = list(host_addresses)
    host_ports = (settings.host_port, _HOST_SSH_PORT)
    node_ports = {settings.runner_port}
    if any(_is_of_this_machine(address) for address in addresses):
        node_ports.update(host_ports)
    places += [
        Place(ipaddress.ip_network(address), port)
        for address in addresses
        for port in host_ports
        if not ipaddress.ip_address(address).is_loopback
    ]
    # A port of the node may be translated to one of a container, and then it is not the node that is reached.
    places += [Place(ipaddress.ip_network(address), port) for address in own_addresses for port in node_ports]
    return Closed(tuple(places), METADATA in settings.deny, frozenset(node_ports), but)


def addresses_of(settings: EgressSettings) -> list[str]:
    """The host's, if they matter; blocking, and OSError where its name cannot be looked up."""
    if CONTROL not in settings.deny:
        return []
    found = socket.getaddrinfo(settings.host, None, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]).partition("%")[0] for entry in found})


def addresses_of_node() -> list[str]:
    """The IPv4 addresses of this machine but for the loopback's; workloads reach no others. Blocking."""
    found = set()
    address = ""
    for line in _ADDRESSES.read_text().splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words == ["/32", "host", "LOCAL"] and not address.startswith("127."):
            found.add(address)
    return sorted(found)


def _is_of_this_machine(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


_TABLE = """\
table inet {table}
delete table inet {table}
table inet {table} {{
  chain closed {{
{rules}
  }}
  chain through_node {{
    type filter hook forward priority -10; policy accept;
    iifname != "{bridge}" accept
    ct direction reply accept
    jump closed
  }}
  chain into_node {{
    type filter hook input priority -10; policy accept;
    iifname != "{bridge}" accept
    ct direction reply accept
{but}
    jump closed
{into_node}
  }}
}}
"""


def whole_table(table: str, bridge: str, closed: Closed) -> str:
    """Commands that make the table, or make it anew."""
    ports = ", ".join(map(str, sorted(closed.node_ports)))
    return _TABLE.format(
        table=table,
        bridge=bridge,
        rules="\n".join(f"    {rule}" for rule in _closing_rules(closed)),
        but=_open_rule(*closed.but) if closed.but else "",
        into_node=f"    {_HAS_PORTS} th dport {{ {ports} }} reject" if ports else "",
    )


def _open_rule(address: str, port: int) -> str:
    before = f"ct original ip daddr {address} ct original proto-dst {port}"
    return f"    ip daddr {address} tcp dport {port} {before} accept"


def _closing_rules(closed: Closed) -> Iterable[str]:
    """One rule for each kind of address and port, with all addresses of that kind in it."""
    kinds: dict[tuple[str, str], list[Network]] = {}
    for place in closed.places:
        which = "" if place.port is None else f"{_HAS_PORTS} @@ dport {place.port}"
        kinds.setdefault((_protocol(place.network), which), []).append(place.network)
    if closed.metadata:
        for text in _METADATA:
            network = ipaddress.ip_network(text)
            which = f"{_HAS_PORTS} @@ dport != {_DNS_PORT}"
            kinds.setdefault((_protocol(network), which), []).append(network)
    for (protocol, which), networks in kinds.items():
        merged = ", ".join(str(network) for network in _collapsed(networks))
        now = which.replace("@@", "th")
        before = which.replace("@@ dport", "ct original proto-dst")
        yield f"{protocol} daddr {{ {merged} }} {now} reject"
        yield f"ct original {protocol} daddr {{ {merged} }} {before} reject"


def _protocol(network: Network) -> str:
    return "ip" if network.version == 4 else "ip6"


def _collapsed(networks: list[Network]) -> Iterable[Network]:
    """Each address once, which a set needs."""
    return ipaddress.collapse_addresses(networks)  # type: ignore[type-var]  # all of one version
