"""The two output streams of a task over HTTP: whole, by range, the last lines, or followed to the end.

So are the times of both, in the form of `models.output.times`: who wants the streams in the order in which
they were written, or from a time on, reads that and then of the streams what it says.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header, Query
from starlette.responses import Response, StreamingResponse

from kohakuriver.host.api.http.answers import Endpoint
from kohakuriver.host.api.http.followed_stream import FollowedStream
from kohakuriver.host.api.path_fields import TaskIdText
from kohakuriver.host.api.permissions import Call, ViewerCall
from kohakuriver.host.api.tasks.output import MAX_LINES
from kohakuriver.models.enums import Stream
from kohakuriver.models.ids import parse_task_id
from kohakuriver.models.output.places import OutputIndex, OutputPart

OFFSET_HEADER = "Kohakuriver-Offset"
_MEDIA_TYPE = "text/plain; charset=utf-8"
_TIMES_MEDIA_TYPE = "application/octet-stream"
_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})", re.ASCII)

Lines = Annotated[
    int | None, Query(ge=0, le=MAX_LINES, description="only the last so many lines, at most 64 MiB of them")
]
Follow = Annotated[bool, Query(description="go on until the task has ended and all its bytes were sent")]
Attempt = Annotated[
    int | None,
    Query(ge=1, le=1 << 31, description="only this attempt; without, the current one and those that follow"),
]
RangeHeader = Annotated[str | None, Header(alias="Range", max_length=200, description="bytes=first-last")]


@dataclass(frozen=True, slots=True)
class _Wanted:
    lines: int | None
    follow: bool
    attempt: int | None
    range: re.Match[str] | None


async def stdout(
    call: ViewerCall,
    task_id: TaskIdText,
    lines: Lines = None,
    follow: Follow = False,
    attempt: Attempt = None,
    range_: RangeHeader = None,
) -> Response:
    """Read what a task wrote to its standard output."""
    return await _output(call, task_id, Stream.STDOUT, _Wanted(lines, follow, attempt, _parse(range_)))


async def stderr(
    call: ViewerCall,
    task_id: TaskIdText,
    lines: Lines = None,
    follow: Follow = False,
    attempt: Attempt = None,
    range_: RangeHeader = None,
) -> Response:
    """Read what a task wrote to its standard error."""
    return await _output(call, task_id, Stream.STDERR, _Wanted(lines, follow, attempt, _parse(range_)))


async def times(
    call: ViewerCall,
    task_id: TaskIdText,
    follow: Follow = False,
    attempt: Attempt = None,
    range_: RangeHeader = None,
) -> Response:
    """Read when what of a task's output was written (docs/design/0026); empty: nobody took that down."""
    return await _output(call, task_id, OutputIndex.TIMES, _Wanted(None, follow, attempt, _parse(range_)))


def _parse(header: str | None) -> re.Match[str] | None:
    """Return a single range; what is none is ignored, as RFC 9110 (14.2) says."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match["first"] or match["last"]):
        return None
    if match["first"] and match["last"] and int(match["last"]) < int(match["first"]):
        return None
    return match


async def _output(call: Call, text: str, part: OutputPart, wanted: _Wanted) -> Response:
    task = await call.control.tasks.find(parse_task_id(text))
    output = call.parts.output
    if wanted.attempt is not None:
        task = await output.of_attempt(task, wanted.attempt, call.control.tasks)
    source = output.source_of(task, part)
    begin, end, status = 0, await source.size(), 200
    media_type = _TIMES_MEDIA_TYPE if part is OutputIndex.TIMES else _MEDIA_TYPE
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Accept-Ranges": "bytes"}
    size = end
    if wanted.lines is not None:
        begin = await output.tail_offset(source, wanted.lines)
    elif wanted.range is not None:
        begin, end = _window(wanted.range, size)
        if begin >= size and not wanted.follow:
            headers["Content-Range"] = f"bytes */{size}"
            return Response(b"", 416, headers, media_type="text/plain")
        status = 206
    headers[OFFSET_HEADER] = str(begin)
    if wanted.follow:
        growing = output.follow(task, part, begin, call.control.tasks, wanted.attempt)
        return FollowedStream(growing, status, headers, media_type, refused=call.refused)
    headers["Content-Length"] = str(max(0, end - begin))
    if status == 206:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    return StreamingResponse(output.read(source, begin, end), status, headers, media_type=media_type)


def _window(match: re.Match[str], size: int) -> tuple[int, int]:
    """Return the range as [begin, end) within a stream of this size; a suffix range counts from the end."""
    if not match["first"]:
        return max(0, size - int(match["last"])), size
    end = min(size, int(match["last"]) + 1) if match["last"] else size
    return int(match["first"]), end


ENDPOINTS = (
    Endpoint("GET", "/api/tasks/{task_id}/stdout", stdout, errors=(404, 416), media_type="text/plain"),
    Endpoint("GET", "/api/tasks/{task_id}/stderr", stderr, errors=(404, 416), media_type="text/plain"),
    Endpoint("GET", "/api/tasks/{task_id}/times", times, errors=(404, 416), media_type=_TIMES_MEDIA_TYPE),
)
