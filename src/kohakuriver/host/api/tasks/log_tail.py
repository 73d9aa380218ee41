"""Following output streams as they grow: one look at a stream serves all who follow it.

Rules: a stream is looked at only while somebody follows it. What is new is kept for a moment and handed to
everybody; a follower that is further behind reads for itself, as fast as its client takes it. A new attempt
of a task begins a new stream, which followers go on with from its start.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from kohakuriver.broadcast import Broadcast
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.output.places import OutputIndex, OutputPart
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ENDED
from kohakuriver.pauses import growing_pauses

log = structlog.get_logger()

CHUNK_BYTES = 256 << 10
KEPT_BYTES = 1 << 20
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25
_PAUSE_PER_FOLLOWER_SECONDS = 0.0005
"""The more follow, the more output goes into one piece, so that the work of sending stays bounded."""
_RETRY_PAUSE_SECONDS = 1.0
_WAIT_ENDED_SECONDS = 60.0
_LATE_BYTES_SECONDS = 30.0
"""How long bytes of an ended task may still be on their way (network storage shows them late)."""


def _look_pauses() -> Iterator[float]:
    return growing_pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, growth=1.5, jitter=0)


class Source(Protocol):
    """One output stream that may still grow."""

    async def size(self) -> int: ...

    async def read(self, offset: int, length: int) -> bytes: ...


class TaskWatch(Protocol):
    """What following needs of the control room."""

    def wait_ended(self, task_id: TaskId, seconds: float) -> Coroutine[Any, Any, Task]: ...

    def live(self, task_id: TaskId) -> Task | None: ...

    def find(self, task_id: TaskId) -> Coroutine[Any, Any, Task]: ...

    def find_attempt(self, task_id: TaskId, number: int) -> Coroutine[Any, Any, Attempt | None]: ...


SourceOf = Callable[[Task, OutputPart], Source]
OfAttempt = Callable[[Task, int, TaskWatch], Coroutine[Any, Any, Task]]
"""The record of a task with that attempt in it, which may be an older one."""


class Tails:
    """The streams that somebody follows now; `followers` counts who does. Close it at the end."""

    def __init__(self, source_of: SourceOf, of_attempt: OfAttempt) -> None:
        self._source_of = source_of
        self._of_attempt = of_attempt
        self._tails: dict[tuple[TaskId, OutputPart, int | None], _Tail] = {}
        self.followers = 0

    def close(self) -> None:
        """End all following, because the host stops; clients see that their answer is not whole."""
        for tail in self._tails.values():
            tail.give_up(Unavailable("the host stops; ask again for the rest"))

    async def follow(
        self, task: Task, stream: OutputPart, offset: int, watch: TaskWatch, attempt: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the stream from `offset` as it grows, until the task has ended and all were sent.

        Those who follow only one attempt say which.
        """
        key = task.id, stream, attempt
        tail = self._tails.get(key)
        if tail is None:
            looking = _Looking(self._source_of, self._of_attempt, watch)
            tail = self._tails[key] = _Tail(looking, task, stream, attempt)
            tail.begin(offset)
        tail.followers += 1
        self.followers += 1
        try:
            async for chunk in tail.read_from(offset):
                yield chunk
        finally:
            tail.followers -= 1
            self.followers -= 1
            if not tail.followers:
                self._tails.pop(key, None)
                await tail.end()


@dataclass(frozen=True, slots=True)
class _Looking:
    """Whom a tail asks."""

    source_of: SourceOf
    of_attempt: OfAttempt
    watch: TaskWatch


class _Tail:
    """One stream being followed. `_end` is how far it has been seen, `_kept` its newest pieces.

    `attempt`: the only one that is followed; None follows the newest.
    """

    def __init__(self, looking: _Looking, task: Task, stream: OutputPart, attempt: int | None) -> None:
        self.followers = 0
        self._source_of = looking.source_of
        self._of_attempt = looking.of_attempt
        self._watch = looking.watch
        self._attempt = attempt
        self._task = task
        self._stream = stream
        self._end = 0
        self._epoch = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._grown = Broadcast()
        self._complete = False
        self._fault: Unavailable | None = None
        self._looking: asyncio.Task[None] | None = None

    def begin(self, offset: int) -> None:
        """Look from now on; the owner ends it. `offset` counts where the size cannot be had."""
        self._looking = asyncio.get_running_loop().create_task(self._supervise(offset))

    async def end(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def give_up(self, fault: Unavailable) -> None:
        self._fault = fault
        self._tell()

    async def read_from(self, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from there on; raises Unavailable if the rest of an ended task's cannot be had."""
        epoch, lacking_since = self._epoch, 0.0
        while True:
            grown = self._grown.next
            if epoch != self._epoch:
                epoch, offset = self._epoch, 0
            if self._fault is not None:
                raise self._fault
            if offset >= self._end:
                if self._complete:
                    return
                await grown.wait()
                continue
            chunk = self._from_kept(offset) or await self._read(offset)
            if chunk:
                yield chunk
                offset, lacking_since = offset + len(chunk), 0.0
                continue
            lacking_since = lacking_since or _clock()
            if self._complete and _clock() - lacking_since > _LATE_BYTES_SECONDS:
                raise _rest_missing(self._task)
            await asyncio.sleep(_RETRY_PAUSE_SECONDS)

    def _from_kept(self, offset: int) -> bytes:
        for begin, piece in self._kept:
            if begin <= offset < begin + len(piece):
                return piece if begin == offset else piece[offset - begin :]
        return b""

    async def _supervise(self, offset: int) -> None:
        """Followers must never wait for somebody who does not look any more."""
        try:
            await self._look(offset)
        except KohakuRiverError as error:
            self.give_up(Unavailable(str(error)))
        except Exception as error:
            log.exception("following_failed", task_id=self._task.id)
            self.give_up(Unavailable(f"the output of task {self._task.id} cannot be followed: {error}"))

    async def _look(self, offset: int) -> None:
        """See the stream grow until the task has ended and all is there."""
        await self._find_end(offset)
        ended = self._await_end()
        pauses, deadline = _look_pauses(), 0.0
        try:
            while True:
                if (live := self._watch.live(self._task.id)) is not None:
                    await self._take(live)
                chunk, unreachable = await self._try_read(self._end)
                if chunk:
                    self._keep(chunk)
                    pauses = _look_pauses()
                    if len(chunk) < CHUNK_BYTES:
                        await asyncio.sleep(self.followers * _PAUSE_PER_FOLLOWER_SECONDS)
                    continue
                if self._is_over():
                    deadline = deadline or _clock() + _LATE_BYTES_SECONDS
                    if self._is_settled(unreachable, _clock() >= deadline):
                        return
                    await asyncio.sleep(next(pauses))
                elif (
                    await asyncio.wait({ended}, timeout=_RETRY_PAUSE_SECONDS if unreachable else next(pauses))
                )[0]:
                    await self._take(ended.result())
                    # The bytes may have come between the read and the end, so read once more in any case.
                    ended = ended if self._is_over() else self._await_end()
                    continue
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _find_end(self, offset: int) -> None:
        try:
            self._end = await self._source_of(self._task, self._stream).size()
        except Unavailable as error:
            log.info("output_not_readable_now", task_id=self._task.id, reason=str(error))
            self._end = offset
        self._tell()

    def _await_end(self) -> asyncio.Task[Task]:
        """Have the control room report the task's end; `_look` owns what is returned."""
        waiting = self._watch.wait_ended(self._task.id, _WAIT_ENDED_SECONDS)
        return asyncio.get_running_loop().create_task(waiting)

    def _is_over(self) -> bool:
        return self._task.state in ENDED or self._task.attempt.end is not None

    async def _take(self, task: Task) -> None:
        """Go on with the newest record; with a new attempt the stream begins anew."""
        if self._attempt is not None:
            if self._is_over():
                return
            task = await self._of_attempt(task, self._attempt, self._watch)
        if self._task.attempt.number not in (0, task.attempt.number):
            self._epoch += 1
            self._end = self._kept_bytes = 0
            self._kept.clear()
            self._tell()
        self._task = task

    def _is_settled(self, unreachable: bool, too_late: bool) -> bool:
        """Tell whether there is nothing to wait for any more, and the followers as well."""
        task = self._task
        total = recorded_bytes(task, self._stream)
        owed = unreachable if total is None else self._end < total
        if owed and not too_late:
            return False
        self._complete = True
        if owed:
            self._fault = _rest_missing(task)
        self._tell()
        return True

    async def _try_read(self, offset: int) -> tuple[bytes, bool]:
        """Return what there is beyond the offset, and whether the node cannot be asked just now."""
        try:
            return await self._source_of(self._task, self._stream).read(offset, CHUNK_BYTES), False
        except Unavailable as error:
            log.info("output_not_readable_now", task_id=self._task.id, reason=str(error))
            return b"", True

    async def _read(self, offset: int) -> bytes:
        chunk, _ = await self._try_read(offset)
        return chunk

    def _keep(self, chunk: bytes) -> None:
        self._kept.append((self._end, chunk))
        self._end += len(chunk)
        self._kept_bytes += len(chunk)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft()[1])
        self._tell()

    def _tell(self) -> None:
        self._grown.wake_all()


def recorded_bytes(task: Task, part: OutputPart) -> int | None:
    """Return how large the record says that it became; None: it does not say so."""
    if part is OutputIndex.TIMES:
        return None
    attempt = task.attempt
    return attempt.stdout_bytes if part is Stream.STDOUT else attempt.stderr_bytes


def _rest_missing(task: Task) -> Unavailable:
    return Unavailable(f"the rest of the output of task {task.id} cannot be read now")


def _clock() -> float:
    return asyncio.get_running_loop().time()
