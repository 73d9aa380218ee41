"""What happens in the cluster, for any number of clients that look on: each event is encoded once.

Rules: nothing is read or encoded while nobody looks on. Events come from the store, so that nobody hears of
what is not committed. A follower first gets what it missed from the store, page by page, then the blocks that
all followers share; one that reads too slowly for the blocks that are kept is told so and let go.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec
import structlog

from kohakuriver.broadcast import Broadcast
from kohakuriver.host.control import NumberedEvent
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.errors import Unavailable

log = structlog.get_logger()

PAGE_EVENTS = 500
MAX_MISSED_EVENTS = 100_000
"""A client that missed more than that is told to read the lists again instead."""
KEPT_BLOCKS = 256
KEPT_BYTES = 8 << 20
BEAT_SECONDS = 15.0
UNREADABLE_PAUSE_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.02
_PAUSE_PER_FOLLOWER_SECONDS = 0.0005
"""The more look on, the more events share one block, so that the work of sending stays bounded."""

Sees = Callable[[str], bool]
"""Whether a follower may see tasks of an owner."""
Hold = Callable[[Callable[[str], None]], AbstractContextManager[object]]
"""Calls the function with a sentence as soon as a follower may not look on any more."""


class TaskEventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a task's history, as `event: task` carries it; its number is the event's `id`."""

    task_id: str
    owner: str
    kind: str
    attempt: int
    at: datetime
    detail: str | None


class NodeEventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a node stands now, as `event: node` carries it; `status` null: it is no node any more.

    `closed_reason` says in a few words why it takes no new work, empty if it does.
    """

    hostname: str
    status: NodeStatus | None
    closed_reason: str = ""


class EventLog(Protocol):
    """What the feed reads; the control room gives it."""

    async def newest_event(self) -> int: ...

    async def events_after(self, number: int, limit: int) -> list[NumberedEvent]: ...


NodeOpenness = Callable[[], dict[str, tuple[NodeStatus, str]]]


@dataclass(frozen=True, slots=True)
class _Block:
    """Events that were published together, also as one text for those who see all.

    `of_tasks`: (owner, text) of each; `of_nodes` are nobody's own. `last`: number of the last one of a task,
    0 if there is none.
    """

    last: int
    of_tasks: tuple[tuple[str, bytes], ...]
    of_nodes: bytes
    whole: bytes

    def seen_by(self, sees: Sees | None) -> bytes:
        if sees is None:
            return self.whole
        return b"".join([text for owner, text in self.of_tasks if sees(owner)]) + self.of_nodes


@dataclass(slots=True)
class _Follower:
    """`dismissed`: why it may not look on any more, as a sentence."""

    sees: Sees | None
    dismissed: str = ""


class EventFeed:
    """`run` serves until it is cancelled; `wake` says that something may have happened."""

    def __init__(self, history: EventLog, openness: NodeOpenness) -> None:
        self._history = history
        self._openness = openness
        self._woken = asyncio.Event()
        self._grown = Broadcast()
        self._opening = asyncio.Lock()
        self._blocks: deque[_Block] = deque()
        self._first_block = 0
        self._kept_bytes = 0
        self._position = 0
        self._nodes: dict[str, tuple[NodeStatus, str]] = {}
        self._ending = ""
        self.followers = 0
        self.dropped = 0
        self.published = 0

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Say goodbye to all followers, because the host stops."""
        self._ending = "the host stops: connect again with the last id"
        self._grown.wake_all()

    async def run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            if self.followers:
                await self._try_publish()
                await asyncio.sleep(_SHORTEST_PAUSE_SECONDS + self.followers * _PAUSE_PER_FOLLOWER_SECONDS)

    async def page(self, after: int, sees: Sees | None) -> bytes:
        """What follows that number in the store, at most one page, for a client that does not wait."""
        events = await self._history.events_after(after, PAGE_EVENTS)
        return _ready(after) + _block_of(events, ()).seen_by(sees)

    async def follow(self, after: int | None, sees: Sees | None, held: Hold) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events from that number on (None: from now), for as long as they are `held`."""
        await self._open()
        follower = _Follower(sees)
        try:
            with held(partial(self._dismiss, follower)):
                newest, block = self._position, self._first_block + len(self._blocks)
                position = newest if after is None else min(after, newest)
                if newest - position > MAX_MISSED_EVENTS:
                    yield _ready(newest) + _words("gap", "too much happened meanwhile: read the lists again")
                else:
                    yield _ready(position)
                    async for text in self._missed(position, newest, sees):
                        yield text
                async for text in self._shared(block, follower):
                    yield text
        finally:
            self.followers -= 1

    def _dismiss(self, follower: _Follower, reason: str) -> None:
        follower.dismissed = reason
        self._grown.wake_all()

    async def _missed(self, position: int, newest: int, sees: Sees | None) -> AsyncGenerator[bytes, None]:
        """The events after `position` up to `newest`, of which the feed has made its blocks already."""
        while position < newest:
            limit = min(PAGE_EVENTS, newest - position)
            block = _block_of(await self._history.events_after(position, limit), ())
            if not block.last:
                return
            position = block.last
            if text := block.seen_by(sees):
                yield text

    async def _open(self) -> None:
        """Count one more follower; the first one sets where the feed begins."""
        async with self._opening:
            if not self.followers:
                self._position = await self._history.newest_event()
                self._nodes = self._openness()
                self._blocks.clear()
                self._kept_bytes = 0
            self.followers += 1
        self.wake()

    async def _shared(self, number: int, follower: _Follower) -> AsyncGenerator[bytes, None]:
        """The blocks from that one on, as they are made, and a beat where there is nothing to tell."""
        last, quiet_since = 0, _clock()
        while True:
            grown = self._grown.next
            if reason := self._ending or follower.dismissed:
                yield _words("end", reason)
                return
            if number < self._first_block:
                self.dropped += 1
                yield _words("dropped", "this reader is too slow: connect again with the last id")
                return
            text = b""
            if number - self._first_block < len(self._blocks):
                block = self._blocks[number - self._first_block]
                number, last, text = number + 1, block.last or last, block.seen_by(follower.sees)
            elif await _set_within(grown, quiet_since + BEAT_SECONDS - _clock()):
                continue
            if not text and _clock() - quiet_since >= BEAT_SECONDS:
                # Those who see little are told how far they are, so that they need not go through it again.
                text = b"id: %d\n: beat\n\n" % last if last else b": beat\n\n"
            if text:
                yield text
                quiet_since = _clock()

    async def _try_publish(self) -> None:
        """A store that cannot be read now must not end the feed: what is there is told later."""
        try:
            async with self._opening:
                await self._publish()
        except Unavailable as error:
            log.warning("events_not_readable_now", reason=str(error))
        except Exception:  # boundary of one look; whoever made an event that cannot be told ends nothing
            log.exception("events_not_told")
        else:
            return
        self.wake()
        await asyncio.sleep(UNREADABLE_PAUSE_SECONDS)

    async def _publish(self) -> None:
        """Make blocks of what was committed since the last one, and of what nodes changed."""
        while True:
            events = await self._history.events_after(self._position, PAGE_EVENTS)
            nodes = self._node_changes()
            if events:
                self._position = events[-1].number
            if events or nodes:
                self._keep(_block_of(events, nodes))
                self.published += len(events) + len(nodes)
            if len(events) < PAGE_EVENTS:
                return

    def _node_changes(self) -> list[NodeEventRecord]:
        before, self._nodes = self._nodes, self._openness()
        changed = [
            NodeEventRecord(hostname=name, status=now[0], closed_reason=now[1])
            for name, now in self._nodes.items()
            if before.get(name) != now
        ]
        gone = [NodeEventRecord(hostname=name, status=None) for name in before if name not in self._nodes]
        return changed + gone

    def _keep(self, block: _Block) -> None:
        self._blocks.append(block)
        self._kept_bytes += len(block.whole)
        while len(self._blocks) > KEPT_BLOCKS or (self._kept_bytes > KEPT_BYTES and len(self._blocks) > 1):
            self._kept_bytes -= len(self._blocks.popleft().whole)
            self._first_block += 1
        self._grown.wake_all()


_encoder = msgspec.json.Encoder()


def _block_of(events: Iterable[NumberedEvent], nodes: Iterable[NodeEventRecord]) -> _Block:
    of_tasks: list[tuple[str, bytes]] = []
    last = 0
    for numbered in events:
        event = numbered.event
        record = TaskEventRecord(
            task_id=str(event.task_id),
            owner=numbered.owner,
            kind=event.kind,
            attempt=event.attempt,
            at=event.at,
            detail=event.detail,
        )
        last = numbered.number
        text = b"id: %d\nevent: task\ndata: %b\n\n" % (last, _encoder.encode(record))
        of_tasks.append((numbered.owner, text))
    of_nodes = b"".join([b"event: node\ndata: %b\n\n" % _encoder.encode(node) for node in nodes])
    whole = b"".join([text for _, text in of_tasks]) + of_nodes
    return _Block(last, tuple(of_tasks), of_nodes, whole)


def _ready(number: int) -> bytes:
    """The first event: where the stream begins, which a client that reads lists now must know."""
    return b'id: %d\nevent: ready\ndata: {"id":%d}\n\n' % (number, number)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _words(event: str, sentence: str) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), _encoder.encode({"detail": sentence}))
