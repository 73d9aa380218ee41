"""The two files that a workload's output is copied to.

Rules: no link and nothing but a regular file is ever written through (users may reach the folder); bytes are
only appended; the size of a file says how much of its stream is in it, which is what a copy after a crash
goes by; what could not be written stays held until it can. All functions block and belong in a thread.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import EngineFault
from kohakuriver.runner.engines.storage_faults import StorageAway, storage_fault

_MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def reset_output(*paths: Path) -> None:
    """Make the files empty before a first start; what stands there belongs to an attempt that is void."""
    for path in paths:
        fd = _open(path)
        try:
            os.ftruncate(fd, 0)
        except OSError as error:
            raise storage_fault("output", path, error) from error
        finally:
            os.close(fd)


class OutputFile:
    """Takes a stream from its beginning and appends what the file does not hold yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = _open(path)
        self._held = os.fstat(self._fd).st_size
        self._seen = 0
        self._unwritten = memoryview(b"")

    def take(self, pieces: Iterable[bytes]) -> None:
        """Take the next part of the stream, to be written by `flush`, which must have worked before."""
        data = b"".join(pieces)
        known = min(max(self._held - self._seen, 0), len(data))
        self._seen += len(data)
        self._unwritten = memoryview(data)[known:]

    def flush(self) -> None:
        """Write what was taken. StorageAway: not all of it; the rest is still held."""
        while self._unwritten:
            try:
                written = os.write(self._fd, self._unwritten)
            except OSError as error:
                raise storage_fault("output", self._path, error) from error
            reach(CrashPoint.RUNNER_OUTPUT_WRITTEN)
            self._held += written
            self._unwritten = self._unwritten[written:]

    def settle(self) -> None:
        """See that the file has it all; StorageAway if it lost something, which only a new copy mends.

        A network file system may take bytes and find later that its server has no room for them. Closing a
        descriptor makes it tell; a local one has nothing to tell, and this costs nothing there.
        """
        try:
            os.close(os.dup(self._fd))
            size = os.fstat(self._fd).st_size
        except OSError as error:
            raise storage_fault("output", self._path, error) from error
        if size != self._held:
            raise StorageAway(f"{self._path} holds {size} of {self._held} bytes; it is written again")

    @property
    def size_bytes(self) -> int:
        return self._held

    def close(self) -> None:
        os.close(self._fd)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, _FLAGS, _MODE)
    except OSError as error:
        raise storage_fault("output", path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise EngineFault(f"{path} is no regular file; output is not written there")
    return fd
