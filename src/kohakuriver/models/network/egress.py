"""Where workloads may not connect to, as `WORKLOAD_EGRESS_DENY` writes it.

One entry is a name that stands for several places, or an address or network, with a port or without
(`10.0.0.0/8`, `192.0.2.7:443`, `[fd00::1]:80`).
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.numbers import port_number

METADATA = "metadata"
CONTROL = "control"
NAMES = (METADATA, CONTROL)

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses that are closed; `port` None: every port of them."""

    network: Network
    port: int | None = None


def parse_place(text: str) -> Place:
    """Read an entry that is no name; raises InvalidInput."""
    address, port = text, None
    if text.startswith("["):
        address, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise InvalidInput(f"{text[:80]!r} is not of the form [ADDRESS]:PORT")
        port = _port(rest[1:], text) if rest else None
    elif text.count(":") == 1:
        address, _, digits = text.partition(":")
        port = _port(digits, text)
    if "%" in address:
        raise InvalidInput(f"{text[:80]!r} names an interface, and workloads have their own")
    try:
        return Place(ip_network(address), port)
    except ValueError as error:
        names = " nor ".join(NAMES)
        raise InvalidInput(f"{text[:80]!r} is neither {names} nor a network: {error}") from error


def check_entry(text: str) -> str:
    """Return it; raises InvalidInput for what is neither a name nor a place."""
    if text not in NAMES:
        parse_place(text)
    return text


def _port(digits: str, text: str) -> int:
    port = port_number(digits)
    if port is None:
        raise InvalidInput(f"{text[:80]!r} names no port from 1 to 65535")
    return port
