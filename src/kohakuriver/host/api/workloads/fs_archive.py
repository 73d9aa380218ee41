"""Trees copied out of and into workloads, as tar streams that nothing on the way holds more than a piece of.

A copy that breaks is seen as broken: an answer that is not whole ends without the end that HTTP asks for,
and a body that ends early reaches the engine as an error.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kohakuriver.files.records import MAX_PATH_BYTES
from kohakuriver.host.api.http.answers import Endpoint, Message, answer
from kohakuriver.host.api.http.followed_stream import FollowedStream
from kohakuriver.host.api.path_fields import TaskIdText
from kohakuriver.host.api.permissions import Call, UserCall
from kohakuriver.host.api.workloads.reached import RunningWorkload, until_refused, workload_with_open_files
from kohakuriver.models.errors import Denied, EngineFault, KohakuRiverError, Unavailable
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES, Channel
from kohakuriver.wire.file_frames import ARCHIVE_DONE, ARCHIVE_END

_MEDIA_TYPE = "application/x-tar"
_LAST_WORD_SECONDS = 5.0
log = structlog.get_logger()

PathQuery = Annotated[
    str, Query(min_length=1, max_length=MAX_PATH_BYTES, pattern="^/", description="absolute path inside")
]


async def download(call: UserCall, task_id: TaskIdText, path: PathQuery) -> Response:
    """Copy a file, link or folder out, as a tar stream whose names begin with the path's last name."""
    workload = await workload_with_open_files(call, task_id)
    channel = await _open(call, workload, path, "read")
    try:
        first = await channel.receive()
    except BaseException:
        await channel.close()
        raise
    if not isinstance(first, bytes):
        await channel.close()
        raise EngineFault(f"the runner gave nothing of {path}; see its log")
    return _Download(call, workload, channel, first)


async def upload(call: UserCall, task_id: TaskIdText, path: PathQuery, request: Request) -> Response:
    """Unpack a tar stream into an existing folder. Answered once all of it is there."""
    call.trail.note(detail=path)
    workload = await workload_with_open_files(call, task_id)
    channel = await _open(call, workload, path, "write")
    try:
        await _send_all(request, channel, call, workload)
    finally:
        await channel.close()
    return answer(Message(f"the copy into {path} is whole"))


async def _open(call: Call, workload: RunningWorkload, path: str, mode: str) -> Channel:
    target = f"/ws/fs/{workload.task_id}/archive?{urlencode({'path': path, 'mode': mode})}"
    return await call.parts.runners.open_stream(workload.node, target)


class _Download(FollowedStream):
    """The pieces as they come. One that breaks off is left without an end, so that the client sees it."""

    def __init__(self, call: Call, workload: RunningWorkload, channel: Channel, first: bytes) -> None:
        super().__init__(
            _pieces(channel, first),
            200,
            {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
            _MEDIA_TYPE,
            refused=lambda: until_refused(call, workload),
        )
        self._channel = channel
        self._task_id = workload.task_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except KohakuRiverError as error:
            log.warning("archive_broke_off", task_id=str(self._task_id), reason=str(error))
        finally:
            await self._channel.close()


async def _pieces(channel: Channel, first: bytes) -> AsyncGenerator[bytes, None]:
    yield first
    while (piece := await channel.receive()) is not None:
        if isinstance(piece, bytes):
            yield piece


async def _send_all(request: Request, channel: Channel, call: Call, workload: RunningWorkload) -> None:
    """Send the body on until the runner says that all of it is there; raises what ends it before."""
    loop = asyncio.get_running_loop()
    sending = loop.create_task(_send_body(request, channel))
    reply = loop.create_task(channel.receive())
    refusal = loop.create_task(until_refused(call, workload))
    tasks = (sending, reply, refusal)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            if isinstance(sending.exception(), Unavailable):  # the runner left; its last message says why
                await asyncio.wait([reply], timeout=_LAST_WORD_SECONDS)
            if not reply.done():
                sending.result()
        await asyncio.wait((reply, refusal), return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            raise Denied(refusal.result())
        if reply.result() != ARCHIVE_DONE:
            raise EngineFault("the runner ended the copy before it was whole; see its log")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_body(request: Request, channel: Channel) -> None:
    async for chunk in request.stream():
        for place in range(0, len(chunk), MAX_MESSAGE_BYTES):
            await channel.send(chunk[place : place + MAX_MESSAGE_BYTES])
    await channel.send(ARCHIVE_END)


_PATH = "/api/fs/{task_id}/archive"
ENDPOINTS = (
    Endpoint("GET", _PATH, download, errors=(404, 409, 502), media_type=_MEDIA_TYPE),
    Endpoint("PUT", _PATH, upload, Message, errors=(404, 409, 502), takes=_MEDIA_TYPE, audit="file.upload"),
)
