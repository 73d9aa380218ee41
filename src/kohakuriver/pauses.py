"""Pauses between tries, and between looks: they grow, never end, and never exceed a limit."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PAUSE_SECONDS = 30.0

HOST_PAUSE_SECONDS = 10.0
"""Longest pause between two tries to reach the host: after any outage all runners are back well within half a
minute of its return, and 1,000 of them ask no more than 140 times a second meanwhile."""


def growing_pauses(
    first_seconds: float = 0.2,
    limit_seconds: float = MAX_PAUSE_SECONDS,
    *,
    growth: float = 2.0,
    jitter: float = 0.5,
) -> Iterator[float]:
    """Give pauses, each `growth` times as long as the one before, and shortened by up to `jitter` at random.

    The jitter keeps a thousand runners from knocking at the same moment when their host comes back. Who looks
    at something of its own needs none.
    """
    seconds = first_seconds
    while True:
        yield seconds * random.uniform(1 - jitter, 1.0)  # noqa: S311 - spreads load, guards nothing
        seconds = min(seconds * growth, limit_seconds)


def jittered(seconds: float, part: float = 0.1) -> float:
    """Return the time, up to `part` of it shorter or longer."""
    return seconds * random.uniform(1 - part, 1 + part)  # noqa: S311 - spreads load, guards nothing


@dataclass(slots=True)
class Pause:
    """How long what failed is left alone: doubles with each failure. Times are monotonic seconds."""

    first_seconds: float = 1.0
    limit_seconds: float = MAX_PAUSE_SECONDS
    seconds: float = 0.0
    until: float = 0.0

    def grow(self, now: float) -> None:
        self.seconds = min(max(self.seconds * 2, self.first_seconds), self.limit_seconds)
        self.until = now + self.seconds

    def holds(self, now: float) -> bool:
        return now < self.until
