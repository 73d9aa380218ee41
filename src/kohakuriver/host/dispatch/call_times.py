"""When a node is to be called although there are no orders for it, and how it is told that it cannot be."""

import time
from collections.abc import Callable

from kohakuriver.host.dispatch.runner_link import Unreachable, dial_url
from kohakuriver.models.errors import KohakuRiverError, Unavailable

CALL_AGAIN_SECONDS = 300.0
"""A node that answered nothing for so long is called, so that a port that was closed is found before work."""


class CallTimes:
    """By node. Nodes that do not beat are not called, unless they have just registered."""

    def __init__(self, is_online: Callable[[str], bool]) -> None:
        self._is_online = is_online
        self._asked: set[str] = set()
        self._answered_at: dict[str, float] = {}

    def ask_for(self, node: str) -> None:
        self._asked.add(node)

    def is_due(self, node: str) -> bool:
        if node in self._asked:
            return True
        answered_at = self._answered_at.get(node)
        is_old = answered_at is None or time.monotonic() - answered_at > CALL_AGAIN_SECONDS
        return is_old and self._is_online(node)

    def answered(self, node: str) -> None:
        self._asked.discard(node)
        self._answered_at[node] = time.monotonic()

    def failed(self, node: str) -> None:
        """It is called again for as long as it beats."""
        self._asked.discard(node)
        self._answered_at.pop(node, None)


def not_reached_sentence(address: str, announced_url: str, error: KohakuRiverError) -> str:
    """What is shown on a node that does not take orders."""
    if not isinstance(error, Unreachable):
        return f"orders do not get through to it: {error}"
    try:
        place = dial_url(address, announced_url).removeprefix("http://")
    except Unavailable as fault:
        return str(fault)
    return (
        f"the host cannot reach its runner at {place} ({error.reason}); open that port (RUNNER_PORT) "
        "on the node, and on what lies between, for the host"
    )
