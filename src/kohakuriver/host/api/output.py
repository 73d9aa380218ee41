"""Output of tasks as bytes: from the shared storage where it lies there, else through the task's runner.

Rules: files are reached by descriptors from the log folder down and no link is followed; only regular files
are read; no read happens on the event loop; a stream in flight holds one chunk, so a slow reader costs
nothing but time.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from kohakuriver.host.api.parts import RemoteLogs
from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import ENDED

log = structlog.get_logger()

CHUNK_BYTES = 256 << 10
MAX_TAIL_BYTES = 64 << 20
MAX_LINES = 1_000_000
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25
_AWAY_PAUSE_SECONDS = 1.0
_WAIT_ENDED_SECONDS = 60.0
_LATE_BYTES_SECONDS = 30.0
"""How long bytes of an ended task may still be on their way (network storage shows them late)."""
_READERS = 8


class Source(Protocol):
    """One output stream that may still grow."""

    async def size(self) -> int: ...

    async def read(self, offset: int, length: int) -> bytes: ...


class TaskWatch(Protocol):
    """What following needs of the control room."""

    def wait_ended(self, task_id: TaskId, seconds: float) -> Coroutine[Any, Any, Task]: ...


@dataclass(frozen=True, slots=True)
class _NoSource:
    """The stream of a task that never was on a node."""

    async def size(self) -> int:
        return 0

    async def read(self, offset: int, length: int) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class _RemoteSource:
    """The stream as its runner gives it, window by window."""

    logs: RemoteLogs
    node: str
    task_id: TaskId
    stream: Stream

    async def size(self) -> int:
        return (await self.logs.fetch_log(self.node, self.task_id, self.stream, 0, 0))[1]

    async def read(self, offset: int, length: int) -> bytes:
        return (await self.logs.fetch_log(self.node, self.task_id, self.stream, offset, length))[0]


@dataclass(frozen=True, slots=True)
class _FileSource:
    """The stream as a file under the log folder of the shared storage."""

    threads: ThreadPoolExecutor
    folder: Path
    task_id: TaskId
    stream: Stream

    async def size(self) -> int:
        work = partial(_file_size, self.folder, self.task_id, self.stream)
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    async def read(self, offset: int, length: int) -> bytes:
        work = partial(_file_range, self.folder, self.task_id, self.stream, offset, length)
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


class OutputReader:
    """Finds and reads output. `shared_dir` None: the cluster has no shared storage. Close it at the end."""

    def __init__(self, shared_dir: Path | None, remote_logs: RemoteLogs) -> None:
        self._remote_logs = remote_logs
        self._folder = None if shared_dir is None else shared_dir / "logs"
        # A pool of its own: storage that hangs must not take the threads of others.
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="output-reader")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def source_of(self, task: Task, stream: Stream) -> Source:
        """Choose where to read from. A recorded path counts only if it is the one the host itself gives."""
        recorded = task.stdout_path if stream is Stream.STDOUT else task.stderr_path
        if self._folder is not None and recorded == str(_path_of(self._folder, task.id, stream)):
            return _FileSource(self._threads, self._folder, task.id, stream)
        if task.assigned_node is None:
            return _NoSource()
        return _RemoteSource(self._remote_logs, task.assigned_node, task.id, stream)

    async def tail_offset(self, source: Source, lines: int) -> int:
        """Return where the last `lines` lines begin, reading backwards; at most 64 MiB from the end."""
        size = end = await source.size()
        floor = max(0, size - MAX_TAIL_BYTES)
        # A newline at the very end closes the last line and opens no further one.
        missing = lines + 1 if lines and size and await source.read(size - 1, 1) == b"\n" else lines
        if not lines:
            return size
        while end > floor:
            begin = max(floor, end - CHUNK_BYTES)
            block = await source.read(begin, end - begin)
            found = block.count(b"\n")
            if found >= missing:
                return begin + _nth_newline_from_end(block, missing) + 1
            missing -= found
            end = begin
        return floor

    async def read(self, source: Source, begin: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `begin` up to `end`, or to where the stream ends if it is shorter."""
        while begin < end:
            chunk = await source.read(begin, min(CHUNK_BYTES, end - begin))
            if not chunk:
                return
            yield chunk
            begin += len(chunk)

    async def follow(self, task: Task, stream: Stream, offset: int, watch: TaskWatch) -> AsyncIterator[bytes]:
        """Yield the stream from `offset` as it grows, until the task has ended and all were sent."""
        ended = _await_end(watch, task.id)
        pause, deadline = _FIRST_PAUSE_SECONDS, None
        try:
            while True:
                chunk, away = await self._try_read(task, stream, offset)
                if chunk:
                    yield chunk
                    offset, pause = offset + len(chunk), _FIRST_PAUSE_SECONDS
                    continue
                if task.state in ENDED:
                    deadline = deadline or _clock() + _LATE_BYTES_SECONDS
                    if not _is_owed(task, stream, offset, away):
                        return
                    if _clock() >= deadline:
                        raise Unavailable(f"the rest of the output of task {task.id} cannot be read now")
                    await asyncio.sleep(pause)
                elif (await asyncio.wait({ended}, timeout=_AWAY_PAUSE_SECONDS if away else pause))[0]:
                    task = ended.result()
                    # The bytes may have come between the read and the end, so read once more in any case.
                    ended = ended if task.state in ENDED else _await_end(watch, task.id)
                    continue
                pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _try_read(self, task: Task, stream: Stream, offset: int) -> tuple[bytes, bool]:
        """Return what there is beyond the offset, and whether the node cannot be asked just now."""
        try:
            return await self.source_of(task, stream).read(offset, CHUNK_BYTES), False
        except Unavailable as error:
            log.info("output_not_readable_now", task_id=task.id, reason=str(error))
            return b"", True


def _await_end(watch: TaskWatch, task_id: TaskId) -> asyncio.Task[Task]:
    """Have the control room tell of the task's end; `follow` owns what is returned."""
    return asyncio.get_running_loop().create_task(watch.wait_ended(task_id, _WAIT_ENDED_SECONDS))


def _is_owed(task: Task, stream: Stream, offset: int, away: bool) -> bool:
    """Tell whether an ended task has bytes beyond the offset, as far as that is known."""
    total = task.stdout_bytes if stream is Stream.STDOUT else task.stderr_bytes
    return away if total is None else offset < total


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _nth_newline_from_end(block: bytes, count: int) -> int:
    position = len(block)
    for _ in range(count):
        position = block.rindex(b"\n", 0, position)
    return position


def _path_of(folder: Path, task_id: TaskId, stream: Stream) -> Path:
    return folder / str(task_id) / f"{stream.value}.log"


def _file_size(folder: Path, task_id: TaskId, stream: Stream) -> int:
    descriptor = _open(folder, task_id, stream)
    if descriptor is None:
        return 0
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _file_range(folder: Path, task_id: TaskId, stream: Stream, offset: int, length: int) -> bytes:
    descriptor = _open(folder, task_id, stream)
    if descriptor is None:
        return b""
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def _open(folder: Path, task_id: TaskId, stream: Stream) -> int | None:
    """Open the file step by step, so that no link planted on the way is followed; None: not there yet."""
    steps: list[int] = []
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        steps.append(os.open(folder, flags | os.O_DIRECTORY))
        steps.append(os.open(str(task_id), flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=steps[-1]))
        name = f"{stream.value}.log"
        # O_NONBLOCK: opening a FIFO put in the file's place must not wait for a writer.
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=steps[-1])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"the output of task {task_id} cannot be read: {error.strerror}") from error
    finally:
        for step in steps:
            os.close(step)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unavailable(f"the output of task {task_id} is not a regular file, so it is not read")
    return descriptor
