"""What every WebSocket to a host has in common: proof before the token, no proxies, errors of the host."""

import socket
from typing import Any
from urllib.parse import urlsplit

from kohakuriver.client.connection.host_trust import HostAccess
from kohakuriver.client.errors import HostUnreachable, error_from_answer
from kohakuriver.models.errors import KohakuRiverError

OPEN_SECONDS = 20
_FRAME_LIMIT_BYTES = 1 << 20


def socket_options(access: HostAccess, path: str, subprotocol: str) -> tuple[str, dict[str, Any]]:
    """Return the URI and what else `websockets` connects with, in either of its forms; this blocks."""
    sock = proven_socket(access)
    # On a socket of ours TLS is there already.
    scheme, _, place = access.url.partition("://")
    uri = f"{'wss' if scheme == 'https' and sock is None else 'ws'}://{place}{path}"
    return uri, {
        "sock": sock,
        "subprotocols": [subprotocol],
        "additional_headers": {"Authorization": f"Bearer {access.token}"} if access.token else None,
        "compression": None,
        "proxy": None,
        "open_timeout": OPEN_SECONDS,
        "max_size": _FRAME_LIMIT_BYTES,
        # Who is held back, at either end, does not answer for as long as that lasts.
        "ping_timeout": None,
    }


def refusal(access: HostAccess, error: Exception) -> KohakuRiverError:
    """The error that a failed handshake stands for."""
    from websockets.exceptions import InvalidStatus

    if isinstance(error, InvalidStatus):
        answer = error.response
        return error_from_answer(answer.status_code, bytes(answer.body or b""), access.url)
    return _unreachable(access, error)


def proven_socket(access: HostAccess) -> socket.socket | None:
    """A connection to the host that has proven itself, None where there is nothing to prove it against."""
    trust = access.must_prove
    if trust is None:
        return None
    from httpcore2 import NetworkError, TimeoutException

    from kohakuriver.client.connection.proven_connection import ProvenConnections

    url = urlsplit(access.url)
    tls = url.scheme == "https"
    try:
        opened = ProvenConnections(trust, tls=tls).open_socket(
            url.hostname or "", url.port or (443 if tls else 80), OPEN_SECONDS
        )
    except (NetworkError, TimeoutException) as error:
        raise _unreachable(access, error) from error
    opened.settimeout(None)
    return opened


def _unreachable(access: HostAccess, error: Exception) -> HostUnreachable:
    return HostUnreachable(f"no host answers at {access.url} ({error}); is it running?")
