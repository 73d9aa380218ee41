"""Which addresses count as one, wherever what comes from one place is counted."""

import ipaddress

_IPV6_PREFIX = 64


def address_group(address: str) -> str:
    """Return the address itself, of an IPv6 address its /64: one machine has all of that to choose from."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
