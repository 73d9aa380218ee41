"""The two streams of a task in the order in which they were written, with the times at which they were.

The host gives three things that grow (`/stdout`, `/stderr`, `/times`); the third says how much of which of
the other two comes next. It is read first, and of the streams what it lists; they are opened when their
first byte is wanted, so what is left out by `since` or `tail` does not travel.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from kohakuriver.client.errors import TRANSIENT
from kohakuriver.client.records import TaskRecord
from kohakuriver.client.streams.logs import LogsApi
from kohakuriver.client.tasks import TasksApi
from kohakuriver.client.waiting import Patience, has_ended
from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import NotFound
from kohakuriver.models.output.places import OutputIndex
from kohakuriver.models.output.times import Span, SpanDecoder

_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """`since_milliseconds`: from what was written then on. `tail`: the last lines of all that is shown.

    `attempt` None: the current one, and with `follow` those after it.
    """

    streams: tuple[Stream, ...]
    since_milliseconds: int | None = None
    tail: int | None = None
    follow: bool = False
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class TimedPiece:
    """Bytes of a stream, which lie at `begin` in it.

    `milliseconds` since 1970 by the node's clock; None: nobody knows when it was written.
    """

    stream: Stream
    milliseconds: int | None
    begin: int
    data: bytes


class NoTimes(NotFound):
    """When the output of an attempt was written is not on record."""


class OutputInOrder:
    """Output of one task. Raises NoTimes for an attempt of which nobody took the times down."""

    def __init__(self, logs: LogsApi, tasks: TasksApi, task_id: str) -> None:
        self._logs = logs
        self._tasks = tasks
        self._task_id = task_id
        self._patience = Patience(reached=False)

    def read(self, request: OutputRequest) -> Iterator[TimedPiece]:
        """Yield what is there, and with `follow` what comes until the task, or the attempt, has ended."""
        task = self._tasks.status(self._task_id).value
        self._patience.reset()
        attempt = request.attempt or max(task.attempt, 1)
        begins = self._begins(request, attempt)
        while True:
            is_over = request.follow or has_ended(task.status) or attempt < task.attempt
            yield from _Attempt(self._logs, self._task_id, attempt, request, self._patience).read(
                begins, is_over
            )
            if not request.follow or request.attempt is not None:
                return
            task = self._after(attempt)
            if task.attempt <= attempt:
                return
            attempt, begins = attempt + 1, {}

    def _begins(self, request: OutputRequest, attempt: int) -> dict[Stream, int]:
        """See that there are times, and return where the last lines begin, if only they are wanted."""
        # In this order: times are written before the output that they are of.
        shows_some = any([self._logs.has_bytes(self._task_id, stream, attempt) for stream in Stream])
        if shows_some and not self._logs.has_bytes(self._task_id, OutputIndex.TIMES, attempt):
            raise NoTimes(
                f"when the output of attempt {attempt} of task {self._task_id} was written is not known, "
                "since an earlier version ran it; read it without --since, --timestamps and --both"
            )
        if request.tail is None:
            return {}
        begins = {
            stream: self._logs.tail_offset(self._task_id, stream, request.tail, attempt)
            for stream in request.streams
        }
        if len(begins) == 1:
            return begins
        present = OutputRequest(request.streams, request.since_milliseconds)
        pieces = _Attempt(self._logs, self._task_id, attempt, present, self._patience).read(begins, True)
        return _last_lines(pieces, begins, request.tail)

    def _after(self, attempt: int) -> TaskRecord:
        """Return the task once it has ended or come to another attempt, as its output says it did."""
        while True:
            try:
                task = self._tasks.status(self._task_id).value
            except TRANSIENT as error:
                self._patience.bear(error)
                continue
            self._patience.reset()
            if has_ended(task.status) or task.attempt > attempt:
                return task
            time.sleep(_AGAIN_SECONDS)


class _Attempt:
    """One reading of one attempt."""

    def __init__(
        self, logs: LogsApi, task_id: str, attempt: int, request: OutputRequest, patience: Patience
    ) -> None:
        self._logs = logs
        self._task_id = task_id
        self._attempt = attempt
        self._request = request
        self._patience = patience
        self._place = dict.fromkeys(Stream, 0)
        self._open: dict[Stream, _Ahead] = {}
        self._begun = request.since_milliseconds is None

    def read(self, begins: dict[Stream, int], is_over: bool) -> Iterator[TimedPiece]:
        """Yield what lies behind `begins`; `is_over`: what no time is known of at the end counts as well."""
        decoder = SpanDecoder()
        for chunk in self._parts(OutputIndex.TIMES, 0):
            for span in decoder.feed(chunk):
                yield from self._span(span, begins)
        for stream in self._request.streams if is_over else ():
            ahead = self._ahead(stream, max(self._place[stream], begins.get(stream, 0)))
            for place, data in ahead.take(None):
                yield TimedPiece(stream, None, place, data)

    def _span(self, span: Span, begins: dict[Stream, int]) -> Iterator[TimedPiece]:
        begin = self._place[span.stream]
        end = self._place[span.stream] = begin + span.size_bytes
        begin = max(begin, begins.get(span.stream, 0))
        since, at = self._request.since_milliseconds, span.milliseconds
        self._begun = self._begun or since is None or at is None or at >= since
        if span.stream not in self._request.streams or begin >= end or not self._begun:
            return
        for place, data in self._ahead(span.stream, begin).take(end - begin):
            yield TimedPiece(span.stream, at, place, data)

    def _ahead(self, stream: Stream, begin: int) -> "_Ahead":
        if stream not in self._open:
            self._open[stream] = _Ahead(self._parts(stream, begin), begin)
        return self._open[stream]

    def _parts(self, part: Stream | OutputIndex, begin: int) -> Iterator[bytes]:
        return self._logs.read_from(
            self._task_id, part, begin, self._attempt, follow=self._request.follow, patience=self._patience
        )


class _Ahead:
    """A stream of which some bytes at a time are taken; `place`: where in it the next one lies."""

    def __init__(self, parts: Iterator[bytes], place: int) -> None:
        self.place = place
        self._parts = parts
        self._part = b""
        self._used = 0

    def take(self, size_bytes: int | None) -> Iterator[tuple[int, bytes]]:
        """Yield so many bytes, or as many as there are, and where they lie; None: all that are left."""
        while size_bytes is None or size_bytes > 0:
            if self._used >= len(self._part):
                part = next(self._parts, None)
                if part is None:
                    return
                self._part, self._used = part, 0
                continue
            left = len(self._part) - self._used
            length = left if size_bytes is None else min(left, size_bytes)
            place, data = self.place, self._part[self._used : self._used + length]
            self._used += length
            self.place += length
            if size_bytes is not None:
                size_bytes -= length
            yield place, data


def _last_lines(pieces: Iterator[TimedPiece], begins: dict[Stream, int], lines: int) -> dict[Stream, int]:
    """Return where the last lines of both streams begin: at the end of one that has none of them."""
    places = dict(begins)
    starts: deque[tuple[Stream, int]] = deque(maxlen=lines)
    at_start = dict.fromkeys(begins, True)
    for piece in pieces:
        stream, data = piece.stream, piece.data
        if at_start[stream]:
            starts.append((stream, piece.begin))
        newline = data.find(b"\n")
        while 0 <= newline < len(data) - 1:
            starts.append((stream, piece.begin + newline + 1))
            newline = data.find(b"\n", newline + 1)
        at_start[stream] = data.endswith(b"\n")
        places[stream] = piece.begin + len(data)
    for stream, place in reversed(starts):
        places[stream] = place
    return places
