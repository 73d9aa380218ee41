"""Output of tasks as bytes: from the shared storage where it lies there, else through the task's runner.

Rules: no link is followed below the shared storage (`files.system.linkless`); only regular files are read; no
read happens on the event loop; a stream in flight holds one chunk, so a slow reader costs nothing but time.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from kohakuriver.files.folders.deletion import delete_folder
from kohakuriver.files.system.linkless import NotOurFile, folder_below, open_file_in
from kohakuriver.host.api.tasks.log_tail import CHUNK_BYTES, Source, Tails, TaskWatch, recorded_bytes
from kohakuriver.models.attempts import Attempt
from kohakuriver.models.enums import Stream, TaskState
from kohakuriver.models.errors import NotFound, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.output.places import OutputPart, OutputPlace
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import FINAL


class AttemptWatch:
    """One attempt of a task, watched as if it were the whole task: it is over when another attempt has begun.

    Gives the task's record as it is while the attempt counts, and then only the record of the attempt.

    `of_attempt` makes that one of the task's newest record.
    """

    def __init__(self, watch: TaskWatch, attempt: int, of_attempt: Callable[[Task, int], Task]) -> None:
        self._watch = watch
        self._attempt = attempt
        self._of_attempt = of_attempt

    async def wait_ended(self, task_id: TaskId, seconds: float) -> Task:
        """Return the record when the task has ended, or when the time is over."""
        return self._seen(await self._watch.wait_ended(task_id, seconds))

    def live(self, task_id: TaskId) -> Task | None:
        task = self._watch.live(task_id)
        return None if task is None else self._seen(task)

    def _seen(self, task: Task) -> Task:
        return self._of_attempt(task, self._attempt)


MAX_TAIL_BYTES = 64 << 20
MAX_LINES = 1_000_000
_READERS = 8
_LOGS = "logs"


class RemoteLogs(Protocol):
    """Reads output that lies on a node, through its runner."""

    async def fetch_log(self, node: str, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
        """Return the bytes there are in that range, and the size of the whole stream now."""


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
    place: OutputPlace

    async def size(self) -> int:
        return (await self.logs.fetch_log(self.node, self.place, 0, 0))[1]

    async def read(self, offset: int, length: int) -> bytes:
        return (await self.logs.fetch_log(self.node, self.place, offset, length))[0]


@dataclass(frozen=True, slots=True)
class _FileSource:
    """The stream as a file in the folder of logs in the shared storage.

    `written`: the task has ended, and its stream was not empty then.
    """

    threads: ThreadPoolExecutor
    shared_dir: Path
    place: OutputPlace
    written: bool = False

    async def size(self) -> int:
        """Raises NotFound if some was written, and the file is not there any more."""
        work = partial(_file_size, self.shared_dir, self.place)
        size = await asyncio.get_running_loop().run_in_executor(self.threads, work)
        if size is None and self.written:
            raise NotFound(
                f"the output of task {self.place.task_id} is not there any more; output of ended tasks is "
                "kept for KEEP_OUTPUT_DAYS of the host"
            )
        return size or 0

    async def read(self, offset: int, length: int) -> bytes:
        work = partial(_file_range, self.shared_dir, self.place, offset, length)
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


class OutputReader:
    """Finds and reads output. `shared_dir` None: the cluster has no shared storage. Close it at the end."""

    def __init__(self, shared_dir: Path | None, remote_logs: RemoteLogs) -> None:
        self._remote_logs = remote_logs
        self._shared_dir = shared_dir
        # A pool of its own: storage that hangs must not take the threads of others.
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="output-reader")
        self.tails = Tails(self.source_of, self.of_attempt)

    def close(self) -> None:
        self.tails.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def delete(self, task_id: TaskId) -> bool:
        """Delete what shared storage has of a task's output, of all its attempts; tell whether it was there.

        Raises EngineFault or Conflict. What lies only on a node is not touched.
        """
        if self._shared_dir is None:
            return False
        work = partial(delete_folder, self._shared_dir, (_LOGS,), str(task_id))
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def source_of(self, task: Task, part: OutputPart) -> Source:
        """Choose where to read from. A recorded path counts only if it is the one the host itself gives.

        Times lie where standard output does.
        """
        place = OutputPlace(task.id, task.attempt.number, part)
        stream = Stream.STDERR if part is Stream.STDERR else Stream.STDOUT
        recorded = task.attempt.stdout_path if stream is Stream.STDOUT else task.attempt.stderr_path
        # Hosts before 0002 kept the output of all attempts in the place of the first.
        for known in (place, replace(place, attempt=1)):
            if self._shared_dir is not None and recorded == self._shared_path(replace(known, part=stream)):
                return _FileSource(self._threads, self._shared_dir, known, _written(task, part))
        if task.assigned_node is None:
            return _NoSource()
        return _RemoteSource(self._remote_logs, task.assigned_node, place)

    async def of_attempt(self, task: Task, number: int, tasks: TaskWatch) -> Task:
        """Return the record with that attempt in it; raises NotFound for one that is to come.

        What an attempt before the current one left only on a node cannot be read any more.
        """
        if number > max(task.attempt.number, 1):
            raise NotFound(f"task {task.id} has come to attempt {task.attempt.number} only")
        if number < task.attempt.number:
            # It may come from memory, and how the attempt ended is in the store with the commit.
            task = await tasks.find(task.id)
        if number >= task.attempt.number:
            return task
        past = await tasks.find_attempt(task.id, number) or self._not_kept(task.id, number)
        if past.stdout_path is None:
            past = Attempt(number, end=past.end)
        return changed(task, attempt=changed(past, node=None))

    def _not_kept(self, task_id: TaskId, number: int) -> Attempt:
        """An attempt of a host before 0031: all that is known is that it was followed by another."""
        stdout, stderr = (self._shared_path(OutputPlace(task_id, number, stream)) for stream in Stream)
        return Attempt(number, stdout_path=stdout, stderr_path=stderr, end=TaskState.LOST)

    def follow(
        self, task: Task, part: OutputPart, offset: int, watch: TaskWatch, attempt: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a part as it grows; with `attempt`, until another attempt begins."""
        return self.tails.follow(task, part, offset, watch, attempt)

    def _shared_path(self, place: OutputPlace) -> str | None:
        if self._shared_dir is None:
            return None
        return str(self._shared_dir.joinpath(_LOGS, *place.folders, place.file_name))

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


def _nth_newline_from_end(block: bytes, count: int) -> int:
    position = len(block)
    for _ in range(count):
        position = block.rindex(b"\n", 0, position)
    return position


def _written(task: Task, part: OutputPart) -> bool:
    return task.attempt.end in FINAL and bool(recorded_bytes(task, part))


def _file_size(shared_dir: Path, place: OutputPlace) -> int | None:
    """None: it is not there."""
    descriptor = _open(shared_dir, place)
    if descriptor is None:
        return None
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _file_range(shared_dir: Path, place: OutputPlace, offset: int, length: int) -> bytes:
    descriptor = _open(shared_dir, place)
    if descriptor is None:
        return b""
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def _open(shared_dir: Path, place: OutputPlace) -> int | None:
    """None: it is not there yet."""
    try:
        with folder_below(shared_dir, (_LOGS, *place.folders)) as folder:
            return open_file_in(folder, place.file_name, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except NotOurFile as error:
        raise Unavailable(
            f"the output of task {place.task_id} is not a regular file, so it is not read"
        ) from error
    except OSError as error:
        raise Unavailable(f"the output of task {place.task_id} cannot be read: {error.strerror}") from error
