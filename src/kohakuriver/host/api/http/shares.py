"""How much of this host one caller takes up at once, whoever it is: requests under way, and bytes for them.

A credential says who somebody is, not that they mean well. Bodies that are sent and never ended, and calls
without number beside each other, are held for their callers, so each has a share, and nobody's is that of
another.
"""

from functools import partial

from starlette.types import Scope

from kohakuriver.files.records import MAX_WRITE_REQUEST_BYTES
from kohakuriver.models.errors import TooMany
from kohakuriver.streams.tunnels.without_credit import MOST_HELD_BYTES

_CALLS_OF_A_NODE = 8
"""A runner has two under way, and those that it gave up a moment ago."""
_BYTES_OF_A_NODE = 16 << 20
_REQUESTS_OF_A_USER = 4096
_BYTES_OF_A_USER = MAX_WRITE_REQUEST_BYTES
_TUNNELS_OF_A_USER = 6
"""Of those that wait here for whoever does not read: of clients without credit."""
HELD_KEY = "kohakuriver.held_shares"
"""Where the scope of a request lists what gives its shares back; `HostApi` calls that once it is answered."""


class Shares:
    """`most_calls` and `most_bytes` are what each caller has. Used only from the event loop."""

    def __init__(self, most_calls: int, most_bytes: int) -> None:
        self._most_calls = most_calls
        self._most_bytes = most_bytes
        self._taken: dict[str, tuple[int, int]] = {}

    def hold(self, scope: Scope, caller: str, size: int) -> None:
        """Count one more request that holds so many bytes until it is answered.

        Raises TooMany if that is beyond the share.
        """
        calls, held = self._taken.get(caller, (0, 0))
        if calls and (calls >= self._most_calls or held + size > self._most_bytes):
            raise TooMany("too much of this caller is under way here already; send it when that has ended")
        self._taken[caller] = calls + 1, held + size
        scope[HELD_KEY].append(partial(self._give_back, caller, size))

    def _give_back(self, caller: str, size: int) -> None:
        calls, held = self._taken.pop(caller)
        if calls > 1:
            self._taken[caller] = calls - 1, held - size


def shares_of_nodes() -> Shares:
    return Shares(_CALLS_OF_A_NODE, _BYTES_OF_A_NODE)


def shares_of_users() -> Shares:
    """Of requests with a body that is held as a whole; what flows through counts for nothing."""
    return Shares(_REQUESTS_OF_A_USER, _BYTES_OF_A_USER)


def shares_of_tunnels() -> Shares:
    return Shares(_TUNNELS_OF_A_USER, _TUNNELS_OF_A_USER * MOST_HELD_BYTES)
