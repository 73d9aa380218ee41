"""The two files that a workload's output is copied to.

Rules: no link and nothing but a regular file is ever written through (users may reach the folder); bytes are
only appended; the size of a file says how much of its stream is in it, which is what a copy after a crash
goes by. All functions block and belong in a thread.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kohakuriver.models.errors import EngineFault

_MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def reset_output(*paths: Path) -> None:
    """Make the files empty before a first start; what stands there belongs to an attempt that is void."""
    for path in paths:
        fd = _open(path)
        try:
            os.ftruncate(fd, 0)
        except OSError as error:
            raise _fault(path, error) from error
        finally:
            os.close(fd)


class OutputFile:
    """Takes a stream from its beginning and appends what the file does not hold yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = _open(path)
        self._held = os.fstat(self._fd).st_size
        self._seen = 0

    def take(self, pieces: Iterable[bytes]) -> None:
        """Take the next part of the stream; raises EngineFault if it cannot be stored."""
        data = b"".join(pieces)
        known = min(max(self._held - self._seen, 0), len(data))
        self._seen += len(data)
        view = memoryview(data)[known:]
        while view:
            try:
                written = os.write(self._fd, view)
            except OSError as error:
                raise _fault(self._path, error) from error
            self._held += written
            view = view[written:]

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
        raise _fault(path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise EngineFault(f"{path} is no regular file; output is not written there")
    return fd


def _fault(path: Path, error: OSError) -> EngineFault:
    return EngineFault(
        f"output cannot be written to {path} ({error.strerror}); the engine keeps it until there is room"
    )
