"""How many containers the engine is asked to make or start at the same time.

An engine that is given hundreds at once spends its time on its own locks, and each takes longer than all of
them a few at a time. A call that hangs (the mount of a server that is away) keeps its turn for a while only,
so that it cannot hold up work that has nothing to do with it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_AT_ONCE = 6
_LONGEST_TURN_SECONDS = 20.0


class StartTurns:
    """`async with turns.one():` around each call; first come, first served."""

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._slots = asyncio.Semaphore(at_once)

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
