"""Encoded answers to questions that many clients ask again and again, kept while they are still true."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

_MAX_ENTRIES = 64
_MAX_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    """An answer, the mark it was made from, and when its making began (monotonic seconds)."""

    mark: Hashable
    began: float
    answer: bytes


class AnswerCache:
    """Answers by question. A mark names the state that an answer was made from.

    Makers run one at a time, and an answer whose making began after a client asked is new enough for that
    client, so any number of clients with one question cost two answers at most. Bounded by count and by
    bytes; the answers that were not asked for longest go first.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._size_bytes = 0
        self._making = asyncio.Lock()

    async def get(
        self,
        question: Hashable,
        mark: Callable[[], Hashable],
        make: Callable[[], Awaitable[bytes]],
        max_age_seconds: float = math.inf,
    ) -> bytes:
        """Return the answer, made now unless one with the present mark and within the age is there."""
        asked = time.monotonic()
        entry = self._entries.get(question)
        if entry is not None and entry.mark == mark() and asked - entry.began <= max_age_seconds:
            self._entries.move_to_end(question)
            return entry.answer
        async with self._making:
            entry = self._entries.get(question)
            if entry is None or entry.began < asked:
                # The mark is read first: a change meanwhile must make the answer old, not new.
                present, began = mark(), time.monotonic()
                entry = _Entry(present, began, await make())
                self._keep(question, entry)
            return entry.answer

    def _keep(self, question: Hashable, entry: _Entry) -> None:
        replaced = self._entries.pop(question, None)
        self._size_bytes += len(entry.answer) - (len(replaced.answer) if replaced else 0)
        self._entries[question] = entry
        while len(self._entries) > _MAX_ENTRIES or (self._size_bytes > _MAX_BYTES and len(self._entries) > 1):
            self._size_bytes -= len(self._entries.popitem(last=False)[1].answer)
