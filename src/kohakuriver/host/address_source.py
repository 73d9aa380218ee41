"""What counts as one source where addresses are counted: an IPv4 address, or a /64 of IPv6."""

from ipaddress import ip_address, ip_network


def source_of(address: str) -> str:
    """Addresses of IPv6 count by their /64, which one machine has as a whole."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, 64), strict=False))
