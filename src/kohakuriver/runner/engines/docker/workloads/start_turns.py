"""How many containers the engine is asked to make or start at the same time.

An engine that is given hundreds at once spends its time on its own locks, and each takes longer than all of
them a few at a time (measured on two CPUs: short tasks end at 9.0 per second with six, at 9.7 with three). A
call that hangs (the mount of an unreachable server) keeps its turn for a while only, so that it cannot hold
up work that has nothing to do with it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_FEWEST_AT_ONCE, _MOST_AT_ONCE = 3, 8
_LONGEST_TURN_SECONDS = 20.0


class StartTurns:
    """`async with turns.one():` around each call; first come, first served."""

    def __init__(self, at_once: int | None = None) -> None:
        """`at_once` None: as many as the machine has CPUs, within bounds."""
        fitting = max(_FEWEST_AT_ONCE, min(os.cpu_count() or 1, _MOST_AT_ONCE))
        self._slots = asyncio.Semaphore(at_once or fitting)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a turn; it ends with the block, or when it has taken too long."""
        await self._slots.acquire()
        is_over = False

        def end() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._slots.release()

        overdue = asyncio.get_running_loop().call_later(_LONGEST_TURN_SECONDS, end)
        try:
            yield
        finally:
            overdue.cancel()
            end()
