"""Who is connected: connections of strangers and their bytes, counted by address and in all.

When there are too many, the one that has been a stranger longest leaves, of the address that has most: an
honest request needs milliseconds, so it is never the oldest for long, and a crowd behind one address does not
keep others out.
"""

import asyncio
from collections import Counter
from typing import Protocol

import structlog

from kohakuriver.front_door.limits import ConnectionLimits
from kohakuriver.models.network.address_groups import address_group
from kohakuriver.repeated_news import RepeatedNews

log = structlog.get_logger()

_LOOK_SECONDS = 1.0
_STRANGERS = "stranger_sent_away", "too many connections without a credential"


class Connection(Protocol):
    """A connection. `group`: its address, or what counts as one with it; `held_bytes`: see `charge`;
    `caller`: who has proven that it is theirs, if that is counted.
    """

    group: str
    caller: str
    held_bytes: int

    def look(self, now: float) -> None:
        """End it if it has taken too long; called every second."""

    def make_room(self) -> None:
        """Leave at once, because there are too many strangers."""


class Connections:
    """All connections of one server; used only from its event loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._most = limits.connections_in_all()
        self._all: dict[Connection, None] = {}
        self._strangers: dict[str, dict[Connection, None]] = {}
        self._known: dict[str, dict[Connection, None]] = {}
        self._count = 0
        self._held: Counter[str] = Counter()
        self._held_in_all = 0
        self._news = RepeatedNews()
        self._looking: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._all)

    @property
    def callers(self) -> int:
        """How many known callers have connections."""
        return len(self._known)

    @property
    def strangers(self) -> int:
        return self._count

    @property
    def held_bytes(self) -> int:
        """Of requests without a proven credential."""
        return self._held_in_all

    def enter(self, connection: Connection, address: str) -> None:
        """Take in a new connection, as a stranger's."""
        connection.group = address_group(address)
        self._all[connection] = None
        self.count_as_stranger(connection)
        if self._looking is None:
            self._look_later()

    def leave(self, connection: Connection) -> None:
        self._all.pop(connection, None)
        self._leave_strangers(connection)
        self._leave_caller(connection)

    def count_as_stranger(self, connection: Connection) -> None:
        self._leave_caller(connection)
        own = self._strangers.setdefault(connection.group, {})
        if connection in own:
            return
        own[connection] = None
        self._count += 1
        if len(own) > min(self.limits.connections_of(connection.group), self._most):
            self._send_oldest_away(own, *_STRANGERS)
        elif self._count > self._most:
            self._send_oldest_away(max(self._strangers.values(), key=len), *_STRANGERS)

    def count_as_known(self, connection: Connection, caller: str) -> None:
        """Its oldest connection leaves when one has too many: it must not take those of others."""
        self._leave_strangers(connection)
        if caller == connection.caller:
            return
        self._leave_caller(connection)
        if not caller:
            return
        connection.caller = caller
        own = self._known.setdefault(caller, {})
        own[connection] = None
        if len(own) > min(self.limits.connections_per_caller, self._most):
            self._send_oldest_away(own, "caller_sent_away", "too many connections of one caller")

    def _leave_caller(self, connection: Connection) -> None:
        own = self._known.get(connection.caller)
        if own is None:
            return
        del own[connection]
        if not own:
            del self._known[connection.caller]
        connection.caller = ""

    def _leave_strangers(self, connection: Connection) -> None:
        self.discharge(connection)
        own = self._strangers.get(connection.group)
        if own is None or connection not in own:
            return
        del own[connection]
        self._count -= 1
        if not own:
            del self._strangers[connection.group]

    def charge(self, connection: Connection, size: int) -> bool:
        """Count bytes of a stranger's body; False: they are more than strangers are given."""
        connection.held_bytes += size
        self._held[connection.group] += size
        self._held_in_all += size
        return (
            self._held[connection.group] <= self.limits.stranger_bytes_per_address
            and self._held_in_all <= self.limits.stranger_bytes
        )

    def discharge(self, connection: Connection) -> None:
        size, connection.held_bytes = connection.held_bytes, 0
        if not size:
            return
        self._held_in_all -= size
        self._held[connection.group] -= size
        if not self._held[connection.group]:
            del self._held[connection.group]

    def tell(self, connection: Connection, event: str, reason: str) -> None:
        """Log what was refused, once in a while for each address."""
        what = (connection.group, event, reason)
        if self._news.due(what):
            earlier = self._news.take_kept_back(what)
            log.warning(event, address=connection.group, reason=reason, more_before=earlier)

    def _send_oldest_away(self, own: dict[Connection, None], event: str, reason: str) -> None:
        oldest = next(iter(own))
        self.leave(oldest)
        self.tell(oldest, event, reason)
        oldest.make_room()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self._all:
            return
        self._look_later()
        now = asyncio.get_running_loop().time()
        for connection in list(self._all):
            connection.look(now)
