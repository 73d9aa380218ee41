"""Whether the other end of a connection is still there, by what is heard of it. Time is an argument."""

from dataclasses import dataclass
from enum import Enum, auto

PING_AFTER_SECONDS = 20.0
END_AFTER_SECONDS = 60.0


class Due(Enum):
    NOTHING = auto()
    PING = auto()
    END = auto()


@dataclass(slots=True)
class Life:
    """Any inbound byte counts as life, so whoever reads the connection calls `heard`.

    One PING is due for each `ping_after` of silence; the end is due after `end_after`.
    """

    heard_at: float
    ping_after: float = PING_AFTER_SECONDS
    end_after: float = END_AFTER_SECONDS
    _pings: int = 0

    def heard(self, now: float) -> None:
        self.heard_at = now
        self._pings = 0

    def due(self, now: float) -> Due:
        silent = now - self.heard_at
        if silent >= self.end_after:
            return Due.END
        if silent >= self.ping_after * (self._pings + 1):
            self._pings = int(silent / self.ping_after)
            return Due.PING
        return Due.NOTHING

    def wakes_at(self) -> float:
        """When to ask again, if nothing is heard until then."""
        return self.heard_at + min(self.end_after, self.ping_after * (self._pings + 1))
