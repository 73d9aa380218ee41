"""Changes of a workload's files over a WebSocket, as its runner tells them.

Frames are those of `wire.file_frames`; a client's `{"type": "ping"}` is answered `pong`. A client that does
not read holds its own stream back, and the kernel's bound on what it keeps then shows as an `error` with
`rescan`.
"""

import re
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from fastapi import FastAPI, Query, WebSocket, WebSocketDisconnect

from kohakuriver.host.api.http.auditing import Rule, Unaudited
from kohakuriver.host.api.permissions import Call, UserCall
from kohakuriver.host.api.workloads.reached import RunningWorkload, until_refused, workload_with_open_files
from kohakuriver.models.errors import Denied, EngineFault, InvalidInput, KohakuRiverError, NotFound
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.wire.channel import Channel
from kohakuriver.wire.file_frames import MAX_WATCHED_PATHS, WatchFrame
from kohakuriver.wire.messages import encode

PATH = "/ws/fs/{task_id}/watch"
AUDITED: dict[str, Rule] = {PATH: Unaudited("it reports changes and makes none")}
_SHARED, _LOCAL = "/shared", "/local_temp"
_POLICY_VIOLATION = 1008
_NEXT_PATH = re.compile(r",(?=/)")

PathsQuery = Annotated[
    list[str] | None,
    Query(description="absolute paths: repeated, or one text with commas between; /shared,/local_temp"),
]


class _ClientFrame(msgspec.Struct, frozen=True):
    type: str


def add_file_watch(app: FastAPI) -> None:
    app.add_api_websocket_route(PATH, file_watch)


async def file_watch(websocket: WebSocket, call: UserCall, task_id: str, paths: PathsQuery = None) -> None:
    """Report changes until the client goes, the workload ends, or the right to it does."""
    workload = await workload_with_open_files(call, task_id)
    # What cannot be watched is refused before there is a WebSocket.
    first, channel = await (_watch_usual(call, workload) if paths is None else _watch(call, workload, paths))
    try:
        await websocket.accept()
        await websocket.send_text(first)
        await _relay(websocket, channel, call, workload)
    except WebSocketDisconnect:
        return
    finally:
        await channel.close()


async def _watch_usual(call: Call, workload: RunningWorkload) -> tuple[str, Channel]:
    """Watch the folders that workloads share with each other; not every cluster has the first."""
    try:
        return await _watch(call, workload, [_SHARED, _LOCAL])
    except NotFound:
        return await _watch(call, workload, [_LOCAL])


async def _watch(call: Call, workload: RunningWorkload, texts: list[str]) -> tuple[str, Channel]:
    """Return the runner's first frame and the channel that the others come from."""
    target = f"/ws/fs/{workload.task_id}/watch?{urlencode({'paths': encode(_paths(texts)).decode()})}"
    channel = await call.parts.runners.open_stream(workload.node, target)
    try:
        return await _first_frame(channel), channel
    except BaseException:
        await channel.close()
        raise


async def _first_frame(channel: Channel) -> str:
    first = await channel.receive()
    if not isinstance(first, str):
        raise EngineFault("the runner tells no changes; see its log")
    return first


def _paths(texts: list[str]) -> list[str]:
    paths = [path for text in texts for path in _NEXT_PATH.split(text)]
    if not 1 <= len(paths) <= MAX_WATCHED_PATHS:
        raise InvalidInput(f"watch 1 to {MAX_WATCHED_PATHS} paths at once", field="paths")
    return paths


async def _relay(websocket: WebSocket, channel: Channel, call: Call, workload: RunningWorkload) -> None:
    try:
        await first_to_end(
            _tell(channel, websocket), _answer_pings(websocket), _until_refused(call, workload)
        )
        await websocket.close()
    except Denied as error:
        await websocket.close(_POLICY_VIOLATION, str(error)[:120])
    except KohakuRiverError as error:
        await _send(websocket, WatchFrame(type="error", message=str(error)))
        await websocket.close()


async def _tell(channel: Channel, websocket: WebSocket) -> None:
    while (frame := await channel.receive()) is not None:
        if isinstance(frame, str):
            await websocket.send_text(frame)


async def _answer_pings(websocket: WebSocket) -> None:
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        try:
            frame = msgspec.json.decode(message.get("text") or b"", type=_ClientFrame)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            frame = _ClientFrame("")
        if frame.type == "ping":
            await _send(websocket, WatchFrame(type="pong"))
        else:
            await _send(websocket, WatchFrame(type="error", message='only {"type": "ping"} is taken here'))
    raise WebSocketDisconnect


async def _until_refused(call: Call, workload: RunningWorkload) -> None:
    """Raise once the caller may not use the workload any more."""
    raise Denied(await until_refused(call, workload))


async def _send(websocket: WebSocket, frame: WatchFrame) -> None:
    await websocket.send_text(encode(frame).decode())
