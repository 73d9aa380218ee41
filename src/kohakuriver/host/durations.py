"""How long something took, over many times: counts by upper bound, the sum and the longest. One of these is
how late the event loop is.
"""

import asyncio
from bisect import bisect_left
from itertools import accumulate

BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LAG_INTERVAL_SECONDS = 0.5


class Durations:
    """A histogram with fixed bounds. Used from one thread."""

    __slots__ = ("_counts", "longest_seconds", "sum_seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.sum_seconds = 0.0
        self.longest_seconds = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds
        self.longest_seconds = max(self.longest_seconds, seconds)

    @property
    def count(self) -> int:
        return sum(self._counts)

    def cumulated(self) -> list[tuple[float, int]]:
        """(upper bound, how many were at most that) for each bound; `count` is for all."""
        return list(zip(BOUNDS_SECONDS, accumulate(self._counts), strict=False))


class LoopLag:
    """How late the event loop is, which everything that the host answers waits at least. `run` measures until
    it is cancelled.
    """

    def __init__(self) -> None:
        self.lateness = Durations()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_INTERVAL_SECONDS
            await asyncio.sleep(_LAG_INTERVAL_SECONDS)
            self.lateness.add(max(0.0, loop.time() - due))
