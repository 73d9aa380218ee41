"""Waking everybody who waits for something to change."""

import asyncio


class Broadcast:
    """`next` is set when something changes, and then another event stands in its place.

    Whoever awaits anything between looking and waiting takes `next` before looking, so that no change is
    missed.
    """

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def wake_all(self) -> None:
        changed, self.next = self.next, asyncio.Event()
        changed.set()

    async def wait(self) -> None:
        await self.next.wait()
