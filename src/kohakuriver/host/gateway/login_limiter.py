"""How many connections may be at their login at once, from one address and in all; some more wait a while.

Many people may sit behind one address, and one of them may start twenty copies at once: what finds no room
waits, unheard, until somebody has logged in or left. Addresses of IPv6 count by their /64, which one machine
has as a whole.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from kohakuriver.models.network.address_groups import address_group

MOST_PER_ADDRESS = 10
MOST_IN_ALL = 200
MOST_WAITING_PER_ADDRESS = 50
MOST_WAITING_IN_ALL = 500
_NAMED_ADDRESSES = 5


@dataclass(eq=False, frozen=True, slots=True)
class PendingLogin:
    """One connection that has arrived; `come_in` is called once, when there is room for it."""

    source: str
    come_in: Callable[[], object]


class LoginLimiter:
    """Each `enter` that lets one in is followed by one `leave`; what was turned away is told once."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self._waiting: dict[PendingLogin, None] = {}
        self._waiting_from: Counter[str] = Counter()
        self._turned_away: Counter[str] = Counter()

    def enter(self, address: str, come_in: Callable[[], object]) -> PendingLogin | None:
        """Let a connection in, now or later; None if it is turned away."""
        pending = PendingLogin(address_group(address), come_in)
        if self._has_room(pending.source):
            self._let_in(pending)
        elif (
            len(self._waiting) >= MOST_WAITING_IN_ALL
            or self._waiting_from[pending.source] >= MOST_WAITING_PER_ADDRESS
        ):
            self._turned_away[pending.source] += 1
            return None
        else:
            self._waiting[pending] = None
            self._waiting_from[pending.source] += 1
        return pending

    def give_up(self, pending: PendingLogin) -> bool:
        """Wait no longer; False if it has been let in."""
        if pending not in self._waiting:
            return False
        self._forget(pending)
        self._turned_away[pending.source] += 1
        return True

    def leave(self, pending: PendingLogin) -> None:
        """Make room: it has logged in or is gone."""
        _take_one(self._inside, pending.source)
        for other in self._waiting:
            if self._has_room(other.source):
                self._forget(other)
                self._let_in(other)
                return

    def turned_away(self) -> tuple[int, list[str]]:
        """How many were refused since the last call, and the addresses that most of them came from."""
        total = self._turned_away.total()
        sources = [source for source, _ in self._turned_away.most_common(_NAMED_ADDRESSES)]
        self._turned_away.clear()
        return total, sources

    def _has_room(self, source: str) -> bool:
        return self._inside[source] < MOST_PER_ADDRESS and self._inside.total() < MOST_IN_ALL

    def _let_in(self, pending: PendingLogin) -> None:
        self._inside[pending.source] += 1
        pending.come_in()

    def _forget(self, pending: PendingLogin) -> None:
        del self._waiting[pending]
        _take_one(self._waiting_from, pending.source)


def _take_one(counter: Counter[str], source: str) -> None:
    counter[source] -= 1
    if not counter[source]:
        del counter[source]
