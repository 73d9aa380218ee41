"""Streams about files of workloads: changes as they happen, and trees as tar streams, either way.

`watch` sends text frames `{"type": "watching" | "change" | "error", …}` as clients get them. `archive`
sends or takes pieces of a tar stream; where it takes one, `end` says that it was whole, and `done` that all
of it is there. Both end with the error that ended them.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing

from kohakuriver.files.faults import shown
from kohakuriver.files.rooted_fs import path_bytes
from kohakuriver.files.system.kernel_mounts import lies_in_kernel_place
from kohakuriver.files.tree_watch import Lost, News
from kohakuriver.models.errors import Denied, InvalidInput, Unavailable
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.runner.api.streams import StreamCall, StreamHandler
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES, Channel
from kohakuriver.wire.file_frames import ARCHIVE_DONE, ARCHIVE_END, MAX_WATCHED_PATHS, WatchFrame
from kohakuriver.wire.messages import decode, encode


class FileStreams:
    """`engine_of` raises Unavailable while there is none."""

    def __init__(self, engine_of: Callable[[TaskId], Engine]) -> None:
        self._engine_of = engine_of

    def handlers(self) -> Mapping[str, StreamHandler]:
        return {"/ws/fs/{task_id}/watch": self.watch, "/ws/fs/{task_id}/archive": self.archive}

    async def watch(self, call: StreamCall, channel: Channel) -> None:
        """Report changes until the host leaves or the workload ends. `paths`: a JSON list."""
        paths = _watched_paths(call.query.get("paths", ""))
        task_id = parse_task_id(call.path["task_id"])
        async with aclosing(self._engine_of(task_id).files.watch(task_id, paths)) as news:
            await first_to_end(_tell_changes(news, paths, channel), _until_host_leaves(channel))

    async def archive(self, call: StreamCall, channel: Channel) -> None:
        """Give what is at `path` as a tar stream (`mode=read`), or unpack one into that folder (`write`)."""
        task_id = parse_task_id(call.path["task_id"])
        path = call.query.get("path", "")
        if lies_in_kernel_place(path_bytes(path)):
            raise Denied(f"{path} belongs to the kernel (/proc, /sys, /dev); nothing there is copied")
        files = self._engine_of(task_id).files
        if call.query.get("mode") == "read":
            async with aclosing(files.read_archive(task_id, path)) as pieces:
                async for piece in pieces:
                    for place in range(0, len(piece), MAX_MESSAGE_BYTES):
                        await channel.send(piece[place : place + MAX_MESSAGE_BYTES])
            return
        async with aclosing(_sent_content(channel)) as content:
            await files.write_archive(task_id, path, content)
        await channel.send(ARCHIVE_DONE)


async def _sent_content(channel: Channel) -> AsyncGenerator[bytes, None]:
    while (message := await channel.receive()) != ARCHIVE_END:
        if not isinstance(message, bytes):
            raise Unavailable("the copy was broken off; what came before that is there")
        yield message


async def _tell_changes(
    news: AsyncIterator[Sequence[News]], paths: Sequence[bytes], channel: Channel
) -> None:
    is_watching = False
    async for items in news:
        if not is_watching:
            await channel.send(_text(WatchFrame(type="watching", paths=[shown(path) for path in paths])))
            is_watching = True
        for item in items:
            await channel.send(_text(_frame(item)))


def _frame(news: News) -> WatchFrame:
    if isinstance(news, Lost):
        return WatchFrame(type="error", message=news.sentence, rescan=True)
    old_path = None if news.old_path is None else shown(news.old_path)
    return WatchFrame(
        type="change", event=news.kind, path=shown(news.path), is_dir=news.is_dir, old_path=old_path
    )


def _text(frame: WatchFrame) -> str:
    return encode(frame).decode()


def _watched_paths(text: str) -> list[bytes]:
    try:
        paths = decode(text, list[str])
    except InvalidInput as error:
        raise InvalidInput("paths must be a JSON list of paths", field="paths") from error
    if not 1 <= len(paths) <= MAX_WATCHED_PATHS:
        raise InvalidInput(f"watch 1 to {MAX_WATCHED_PATHS} paths at once", field="paths")
    return [path_bytes(path) for path in paths]


async def _until_host_leaves(channel: Channel) -> None:
    try:
        while await channel.receive() is not None:
            pass
    except Unavailable:
        return
