"""Whether the name that a client called this host by is its own.

A page of another site can have its name resolve to this host, after which the browser takes both for one
site. What it cannot do is send another `Host` than that name. So requests that prove nothing else must come
to a name of ours: loopback, the address that the connection arrived at, the bind address, the machine's name,
or HOST_REACHABLE_ADDRESS.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

from starlette.requests import HTTPConnection

from kohakuriver.models.errors import WrongAddress

_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::[0-9]{0,5})?")
_NOWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
"""What one binds to for all addresses is the name of none."""


class OwnNames:
    """Names and addresses of this host, beside those that every connection tells."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        machine = socket.gethostname()
        given = ("localhost", machine, machine.partition(".")[0], *names)
        self._names = frozenset(_plain(name) for name in given if name) - _NOWHERE

    def check(self, connection: HTTPConnection) -> None:
        """Raise WrongAddress unless the request's one `Host` names this host."""
        hosts = connection.headers.getlist("host")
        name = _name_in(hosts[0]) if len(hosts) == 1 else None
        if name is None or not self._is_ours(name, connection):
            what = f"this host is not called {hosts[0][:100]!r}" if name else "the request names no host"
            raise WrongAddress(
                f"{what}; use its address, set HOST_REACHABLE_ADDRESS to the name that it is to be called "
                "by, or send a token as 'Authorization: Bearer <token>'"
            )

    def _is_ours(self, name: str, connection: HTTPConnection) -> bool:
        if name in self._names:
            return True
        arrived_at = (connection.scope.get("server") or ("",))[0]
        if arrived_at and name == _plain(arrived_at):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _name_in(host: str) -> str | None:
    match = _HOST.fullmatch(host)
    return None if match is None else _plain(match["ipv6"] or match["name"])


def _plain(name: str) -> str:
    """One spelling for each name and address."""
    name = name.lower().removesuffix(".").partition("%")[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
