"""Streams about files of workloads: changes as they happen, and trees as tar streams, either way.

`watch` sends text frames `{"type": "watching" | "change" | "error", …}` as clients get them. `archive`
sends or takes pieces of a tar stream; where it takes one, `end` says that it was whole, and `done` that all
of it is there. Both end with the error that ended them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing

from kohakuriver.descriptors import until_readable
from kohakuriver.files.faults import shown
from kohakuriver.files.rooted_fs import path_bytes
from kohakuriver.files.service import FileService
from kohakuriver.files.system.first_process import FirstProcess
from kohakuriver.files.system.kernel_mounts import lies_in_kernel_place
from kohakuriver.files.tree_watch import Lost, News, TreeWatch, open_watch
from kohakuriver.models.errors import Conflict, Denied, InvalidInput, Unavailable
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.runner.api.streams import StreamCall, StreamHandler
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.streams.pumping import first_to_end
from kohakuriver.wire.channel import MAX_MESSAGE_BYTES, Channel
from kohakuriver.wire.file_frames import ARCHIVE_DONE, ARCHIVE_END, MAX_WATCHED_PATHS, WatchFrame
from kohakuriver.wire.messages import decode, encode


def open_file_service(engine: Callable[[], Engine]) -> FileService[TaskId]:
    """Work on the files of the engine's workloads; the caller closes it."""

    async def first_pid(task_id: TaskId) -> int:
        return await engine().files.first_pid(task_id)

    return FileService(first_pid)


class FileStreams:
    def __init__(self, engine: Callable[[], Engine], files: FileService[TaskId]) -> None:
        self._engine = engine
        self._files = files

    def handlers(self) -> Mapping[str, StreamHandler]:
        return {"/ws/fs/{task_id}/watch": self.watch, "/ws/fs/{task_id}/archive": self.archive}

    async def watch(self, call: StreamCall, channel: Channel) -> None:
        """Tell of changes until the host leaves or the workload ends. `paths`: a JSON list."""
        paths = _watched_paths(call.query.get("paths", ""))
        process = await self._files.hold(parse_task_id(call.path["task_id"]))
        try:
            watch, lost = await self._open_watch(process, paths)
            try:
                await channel.send(_text(WatchFrame(type="watching", paths=[shown(path) for path in paths])))
                await _tell(channel, lost)
                await first_to_end(
                    self._tell_changes(watch, channel), _until_host_leaves(channel), _until_end(process)
                )
            finally:
                self._files.submit(watch.close)
        finally:
            process.close()

    async def _open_watch(self, process: FirstProcess, paths: list[bytes]) -> tuple[TreeWatch, list[Lost]]:
        job = self._files.submit(open_watch, process, paths)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.add_done_callback(_close_late)
            raise

    async def _tell_changes(self, watch: TreeWatch, channel: Channel) -> None:
        while True:
            await until_readable(watch.descriptor)
            await _tell(channel, await asyncio.wrap_future(self._files.submit(watch.take)))

    async def archive(self, call: StreamCall, channel: Channel) -> None:
        """Give what is at `path` as a tar stream (`mode=read`), or unpack one into that folder (`write`)."""
        task_id = parse_task_id(call.path["task_id"])
        path = call.query.get("path", "")
        if lies_in_kernel_place(path_bytes(path)):
            raise Denied(f"{path} belongs to the kernel (/proc, /sys, /dev); nothing there is copied")
        files = self._engine().files
        if call.query.get("mode") == "read":
            async with aclosing(files.read_archive(task_id, path)) as pieces:
                async for piece in pieces:
                    for place in range(0, len(piece), MAX_MESSAGE_BYTES):
                        await channel.send(piece[place : place + MAX_MESSAGE_BYTES])
            return
        async with aclosing(_sent_content(channel)) as content:
            await files.write_archive(task_id, path, content)
        await channel.send(ARCHIVE_DONE)


def _close_late(job: Future[tuple[TreeWatch, list[Lost]]]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result()[0].close()


async def _sent_content(channel: Channel) -> AsyncGenerator[bytes, None]:
    while (message := await channel.receive()) != ARCHIVE_END:
        if not isinstance(message, bytes):
            raise Unavailable("the copy was broken off; what came before that is there")
        yield message


async def _tell(channel: Channel, news: Sequence[News]) -> None:
    for item in news:
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


async def _until_end(process: FirstProcess) -> None:
    await until_readable(process.pidfd)
    raise Conflict("the workload has ended, and with it what could be watched")
