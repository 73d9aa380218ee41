"""What many clients ask again and again, kept encoded while it is still true: answers, and the texts of which
lists are made.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass

import msgspec

from kohakuriver.host.control import NodeSnapshot

_MAX_ENTRIES = 64
_MAX_BYTES = 32 << 20
MOST_TEXTS = 1000
"""As many as the longest list has."""
_MOST_TEXT_BYTES = 4096
"""What is larger is not kept."""
_encode = msgspec.json.Encoder().encode


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


class KeptTexts:
    """Each has a key, and the state that it was made of: 64 bits of a hash, keyed anew in each process."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[int, bytes]] = {}

    def find(self, key: Hashable, state: int) -> bytes | None:
        """May be called in any thread."""
        kept = self._kept.get(key)
        return kept[1] if kept is not None and kept[0] == state else None

    def keep(self, key: Hashable, state: int, text: bytes) -> None:
        if len(text) <= _MOST_TEXT_BYTES:
            self._kept[key] = state, text

    def forget_oldest(self) -> None:
        """Those that go first have been kept for longest."""
        while len(self._kept) > MOST_TEXTS:
            del self._kept[next(iter(self._kept))]


class NodeTexts:
    """Keeps each node's text for as long as its snapshot is the same object."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[NodeSnapshot, bytes]] = {}

    def render(
        self,
        nodes: Iterable[NodeSnapshot],
        record_of: Callable[[NodeSnapshot], msgspec.Struct],
        waiting: Iterable[msgspec.Struct],
    ) -> bytes:
        """Return the whole list: the nodes, then the runners that wait for approval."""
        before, self._texts = self._texts, {}
        for node in nodes:
            name = node.row.hostname
            kept = before.get(name)
            if kept is None or kept[0] is not node:
                kept = node, _encode(record_of(node))
            self._texts[name] = kept
        texts = [text for _, text in self._texts.values()] + [_encode(record) for record in waiting]
        return b"[" + b",".join(texts) + b"]"
