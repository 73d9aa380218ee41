"""Output of tasks as bytes, read through dropped connections without losing or repeating one.

The place in the stream is counted here and asked for again by `Range`. A reader that wants only the last
lines learns from the `Kohakuriver-Offset` header at which byte they begin.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kohakuriver.client.connection.transport import Answer, Transport
from kohakuriver.client.errors import TRANSIENT, error_from_answer
from kohakuriver.client.tasks import TasksApi
from kohakuriver.client.waiting import Patience, has_ended
from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.output.places import OutputPart

OFFSET_HEADER = "Kohakuriver-Offset"
IDLE_SECONDS = 60.0
"""Silence after which a followed stream is asked for again, so that a dead connection is noticed."""

_RETRY_EMPTY_SECONDS = 0.5


@dataclass(slots=True)
class _Place:
    """Where a reader stands. `offset` None: not known yet, because the last `lines` were asked for.

    `lost`: lines came and their place is still not known, so that nothing can be asked for again.
    """

    offset: int | None
    lines: int | None = None
    attempt: int | None = None
    ended: bool = False
    lost: bool = False


class LogsApi:
    """`/api/tasks/{id}/stdout` and `/stderr`, and `/times` of both."""

    def __init__(self, transport: Transport, tasks: TasksApi) -> None:
        self._transport = transport
        self._tasks = tasks

    def read(
        self,
        task_id: str,
        part: OutputPart,
        *,
        follow: bool = False,
        lines: int | None = None,
        attempt: int | None = None,
        patience: Patience | None = None,
    ) -> Iterator[bytes]:
        """Yield it from its beginning or its last `lines`; with `follow` until the task has ended.

        With `attempt` only that attempt's, which is over when the next one begins. Without `patience` the
        host's first failure is an error at once if it has not answered before.
        """
        place = _Place(0 if lines is None else None, lines, attempt)
        yield from self._read(task_id, part, place, follow, patience or Patience(reached=False))

    def read_from(
        self, task_id: str, part: OutputPart, begin: int, attempt: int, *, follow: bool, patience: Patience
    ) -> Iterator[bytes]:
        """Yield of an attempt what lies behind the byte `begin`; see `read`."""
        yield from self._read(task_id, part, _Place(begin, None, attempt), follow, patience)

    def _read(
        self, task_id: str, part: OutputPart, place: _Place, follow: bool, patience: Patience
    ) -> Iterator[bytes]:
        from httpcore2 import ReadTimeout

        while not place.ended:
            try:
                for chunk in self._read_on(task_id, part, place, follow):
                    patience.reset()
                    yield chunk
            except (*self._transport.failures, *TRANSIENT) as error:
                failure = error if isinstance(error, TRANSIENT) else self._transport.unreachable(error)
                if place.lost:
                    raise Unavailable(
                        "the connection was lost, and the host does not say where these lines begin; "
                        "read them again, or without --tail"
                    ) from error
                if isinstance(error, ReadTimeout):
                    continue
                patience.bear(failure)

    def _read_on(self, task_id: str, part: OutputPart, place: _Place, follow: bool) -> Iterator[bytes]:
        """Yield what one connection brings, moving `place` on; empty chunks tell that the host answered."""
        params: dict[str, str | int] = {"follow": "true"} if follow else {}
        headers = {}
        if place.attempt is not None:
            params["attempt"] = place.attempt
        if place.offset is None:
            params["lines"] = place.lines or 0
        elif place.offset:
            headers["Range"] = f"bytes={place.offset}-"
        path = f"/api/tasks/{task_id}/{part.value}"
        with self._transport.stream(
            path, params=params, headers=headers, idle_seconds=IDLE_SECONDS
        ) as answer:
            if answer.status == 416:
                yield b""
                self._at_the_end(task_id, place, follow)
                return
            if answer.status not in (200, 206):
                raise error_from_answer(answer.status, answer.read(), self._transport.url)
            yield b""
            yield from _body(answer, place)
        place.ended = True

    def tail_offset(self, task_id: str, stream: Stream, lines: int, attempt: int) -> int:
        """Return at which byte the last `lines` lines begin now."""
        with self._asked(task_id, stream, {"lines": lines, "attempt": attempt}, {}) as answer:
            begin = answer.headers.get(OFFSET_HEADER.lower(), "")
        if not begin.isdigit():
            raise Unavailable("the host does not say where these lines begin; read it without --tail")
        return int(begin)

    def has_bytes(self, task_id: str, part: OutputPart, attempt: int) -> bool:
        """Tell whether anything of it is there now."""
        with self._asked(task_id, part, {"attempt": attempt}, {"Range": "bytes=0-0"}) as answer:
            return answer.status != 416 and any(answer.pieces())

    @contextmanager
    def _asked(
        self, task_id: str, part: OutputPart, params: dict[str, int], headers: dict[str, str]
    ) -> Iterator[Answer]:
        path = f"/api/tasks/{task_id}/{part.value}"
        try:
            with self._transport.stream(
                path, params=params, headers=headers, idle_seconds=IDLE_SECONDS
            ) as answer:
                if answer.status not in (200, 206, 416):
                    raise error_from_answer(answer.status, answer.read(), self._transport.url)
                yield answer
        except self._transport.failures as error:
            raise self._transport.unreachable(error) from error

    def _at_the_end(self, task_id: str, place: _Place, follow: bool) -> None:
        """Nothing stands beyond the place (yet): the end, unless the task still runs and is followed."""
        if not follow or self._is_over(task_id, place.attempt):
            place.ended = True
        else:
            time.sleep(_RETRY_EMPTY_SECONDS)

    def _is_over(self, task_id: str, attempt: int | None) -> bool:
        task = self._tasks.status(task_id).value
        return has_ended(task.status) or (attempt is not None and task.attempt > attempt)


def _body(answer: Answer, place: _Place) -> Iterator[bytes]:
    """Yield the body from the place on. A host that ignored the range sends the beginning again."""
    skip = 0
    if place.offset is None:
        begin = answer.headers.get(OFFSET_HEADER.lower(), "")
        place.offset = int(begin) if begin.isdigit() else None
    elif answer.status == 200:
        skip = place.offset
    for data in answer.pieces():
        chunk = data[skip:]
        skip = max(0, skip - len(data))
        if not chunk:
            continue
        if place.offset is not None:
            place.offset += len(chunk)
        else:
            place.lost = True
        yield chunk
