"""Addresses as settings write them: host names, IP addresses, and `http://host:port`."""

import re
from dataclasses import dataclass

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True, slots=True)
class HostAddress:
    """Where a host is; `port` is None where the text names none."""

    scheme: str
    host: str
    port: int | None

    def url(self, default_port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port or default_port}"


def is_ip(text: str) -> bool:
    """Tell whether the text is an IPv4 or IPv6 address without a zone."""
    from ipaddress import ip_address

    if "%" in text:
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Tell whether the text is a host name or an IP address."""
    if is_ip(text):
        return True
    labels = text.removesuffix(".").split(".")
    well_formed = len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    # A name that ends in a number is an IP address with a slip in it, such as 192.168.1.300.
    return well_formed and not labels[-1].isdigit()


def parse_host_address(text: str) -> HostAddress:
    """Read a host name, an IP address or `http[s]://host[:port]`; raises ValueError with the reason."""
    if "://" not in text:
        if not is_host(text):
            raise ValueError("it is neither a host name nor an IP address")
        return HostAddress("http", text, None)
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("the URL must be http://host:port and nothing more")
    host = match["host"].strip("[]")
    if not is_host(host):
        raise ValueError("the URL's host is neither a host name nor an IP address")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise ValueError("the URL's port is not from 1 to 65535")
    return HostAddress(match["scheme"], host, port)
