"""Where the two tables are served.

Where RUNNER_BIND_IP covers the gateway one listener has both, and a connection gets the table of who it
comes from. Elsewhere only the workloads' table is served at the gateway, by a server of its own: the host's
is not in it. That listener is bound to an address which need not be there yet, so it is there before the
bridge, and stays when that is made anew.
"""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from kohakuriver.front_door import ConnectionLimits
from kohakuriver.runner.api.workloads.peers import TablesByPeer, WorkloadNetwork
from kohakuriver.serving import ApiServer, bind_listener

_STRANGERS = 1024
"""At the listener that is only for workloads."""
SHUTDOWN_SECONDS = 2

Served = tuple[ApiServer, socket.socket]


@contextmanager
def bound_listeners(address: str, port: int, gateway: str) -> Iterator[list[socket.socket]]:
    """The runner's listener, and where that leaves the gateway uncovered, one there."""
    with closing(bind_listener(address, port, "RUNNER_PORT")) as main:
        if covers(main, gateway):
            yield [main]
            return
        with closing(bind_listener(gateway, port, "RUNNER_PORT", may_be_absent=True)) as beside:
            yield [main, beside]


def covers(listener: socket.socket, gateway: str) -> bool:
    """Whether connections to the gateway arrive at this listener."""
    address = listener.getsockname()[0]
    if listener.family == socket.AF_INET6 and listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return False
    return address in ("0.0.0.0", "::", gateway, f"::ffff:{gateway}")  # noqa: S104 - compared, not bound


def servers(
    listeners: list[socket.socket], network: WorkloadNetwork, host_api: ASGIApp, workload_api: ASGIApp
) -> list[Served]:
    """A server for each of `bound_listeners`."""
    main, *beside = listeners
    if not beside:
        limits = ConnectionLimits(narrow_network=network.subnet)
        return [(ApiServer(TablesByPeer(network, workload_api, host_api), SHUTDOWN_SECONDS, limits), main)]
    limits = ConnectionLimits(stranger_connections=_STRANGERS, narrow_network=network.subnet)
    only_workloads = TablesByPeer(network, workload_api, no_table)
    return [
        (ApiServer(host_api, SHUTDOWN_SECONDS), main),
        *((ApiServer(only_workloads, SHUTDOWN_SECONDS, limits), listener) for listener in beside),
    ]


async def no_table(scope: Scope, _receive: Receive, send: Send) -> None:
    """For whoever reaches the gateway's address from elsewhere: as if nothing were there."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    elif scope["type"] == "http":
        headers = [(b"connection", b"close")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
