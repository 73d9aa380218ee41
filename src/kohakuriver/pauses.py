"""Pauses between tries: they grow, are jittered, never end, and never exceed a limit."""

import random
from collections.abc import Iterator

MAX_PAUSE_SECONDS = 30.0

HOST_PAUSE_SECONDS = 10.0
"""Longest pause between two tries to reach the host: after any outage all runners are back well within half a
minute of its return, and 1,000 of them knock no more than 140 times a second meanwhile."""


def growing_pauses(first_seconds: float = 0.2, limit_seconds: float = MAX_PAUSE_SECONDS) -> Iterator[float]:
    """Give pauses that about double each time, each shortened by up to half at random.

    The jitter keeps a thousand runners from knocking at the same moment when their host comes back.
    """
    seconds = first_seconds
    while True:
        yield seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
        seconds = min(seconds * 2, limit_seconds)


def jittered(seconds: float, part: float = 0.1) -> float:
    """Return the time, up to `part` of it shorter or longer."""
    return seconds * random.uniform(1 - part, 1 + part)  # noqa: S311 - spreads load, guards nothing
