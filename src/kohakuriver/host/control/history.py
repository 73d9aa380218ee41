"""The histories of all tasks as one line of numbered events, read from the store.

An event's number grows with its commit and is never given again, so whoever knows the last one that he has
seen can go on from there, over restarts of the host too.
"""

from functools import partial

from kohakuriver.host.store import queries
from kohakuriver.host.store.records import NumberedEvent
from kohakuriver.host.store.store import Store


class EventHistory:
    """Reads of committed events."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def newest(self) -> int:
        return await self._store.read(queries.newest_event)

    async def after(self, number: int, limit: int) -> list[NumberedEvent]:
        """The events after that number, oldest first, at most `limit` of them."""
        return await self._store.read(partial(queries.events_after, number=number, limit=limit))
