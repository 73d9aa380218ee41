"""News that somebody else can cause as often as they like, told once in a while.

Whoever can be made to log at each request fills the disk and hides what else happens.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class RepeatedNews:
    """Says of each piece of news whether it is due. Bounded: of many different ones the oldest are forgotten,
    and no more than `most_at_once` of them are due in `every_seconds`.
    """

    def __init__(
        self,
        every_seconds: float = 60.0,
        most_at_once: int = 60,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every = every_seconds
        self._most = most_at_once
        self._clock = clock
        self._told: OrderedDict[Hashable, float] = OrderedDict()
        self._kept_back: dict[Hashable, int] = {}

    def due(self, what: Hashable) -> bool:
        """Tell whether to log this now; one that is not is counted."""
        now = self._clock()
        while self._told and now - next(iter(self._told.values())) >= self._every:
            self._told.popitem(last=False)
        if what not in self._told and len(self._told) < self._most:
            self._told[what] = now
            return True
        if what in self._kept_back or len(self._kept_back) < self._most:
            self._kept_back[what] = self._kept_back.get(what, 0) + 1
        return False

    def take_kept_back(self, what: Hashable) -> int:
        """How often it was not told since it was told last."""
        return self._kept_back.pop(what, 0)
