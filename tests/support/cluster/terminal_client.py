"""Terminals and commands in workloads of a test's cluster, frame by frame."""

from websockets.sync.client import ClientConnection, connect

from kohakuriver.wire.terminal_frames import SUBPROTOCOL
from support.cluster.cluster import Cluster


def terminal_of(cluster: Cluster, path: str) -> ClientConnection:
    """A WebSocket of the host's, such as that of a terminal, opened by the administrator."""
    return connect(
        f"ws{cluster.url.removeprefix('http')}{path}",
        additional_headers={"Authorization": f"Bearer {cluster.token}"},
        subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
        compression=None,
        proxy=None,
    )


def echo(client: ClientConnection, letter: bytes) -> None:
    """Have something inside that says what it is told say it."""
    client.send(b"\0" + letter)
    while letter not in client.recv(timeout=30):
        pass
