"""How long the engine is given to make something of ours: longer on a machine that is too busy to be quick.

What is cut off is lost, and on such a machine the next try would be as well, for ever. So a try that ran out
of time gives the next twice as much, and one that succeeded leaves twice what it took, within limits.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from kohakuriver.models.errors import Unavailable

FIRST_SECONDS = 60.0
# One that hangs would hold its place for ever.
LONGEST_SECONDS = 600.0
_T = TypeVar("_T")


class NotInTime(Unavailable):
    """What was to be made was given up, since its time was over."""


class MakingTime:
    """Of one kind of thing on one engine; any number may be made at the same time."""

    def __init__(self) -> None:
        self.seconds = FIRST_SECONDS

    async def give(self, work: Awaitable[_T]) -> _T:
        """Return what it makes; NotInTime when the time is over."""
        limit, clock = self.seconds, asyncio.get_running_loop().time
        begun = clock()
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                made = await work
        except TimeoutError as error:
            if not scope.expired():
                raise
            self.seconds = min(max(self.seconds, 2 * limit), LONGEST_SECONDS)
            raise NotInTime(f"none was ready within {limit:.0f} s") from error
        self.seconds = min(max(2 * (clock() - begun), FIRST_SECONDS), LONGEST_SECONDS)
        return made
