"""The two files that a workload's output is copied to, and the ground of a third one (`times_file`).

Rules: no link is followed on the way to a file (`files.system.linkless`; users may reach the folder), and
nothing but a regular file is written; bytes are only appended; the size of a file says how much of its stream
is in it, which is what a copy after a crash goes by; what could not be written stays held until it can. All
functions block and belong in a thread.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.files.system.linkless import NotOurFile, folder_below, open_file_in, split_below
from kohakuriver.models.errors import EngineFault
from kohakuriver.runner.engines.contract.faults import StorageUnavailable, storage_fault

_MODE = 0o640
_FOLDER_MODE = 0o755
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def reset_output(paths: Iterable[Path], starts: Sequence[Path] = ()) -> None:
    """Make the files empty before a first start; what stands there belongs to an attempt that is void.

    One with a second name is somebody's that was linked here, and stays as it is.
    """
    for path in paths:
        fd = _open(path, starts)
        try:
            if os.fstat(fd).st_nlink > 1:
                raise EngineFault(f"{path} has a second name; remove it, since output is written there")
            os.ftruncate(fd, 0)
        except OSError as error:
            raise storage_fault("output", path, error) from error
        finally:
            os.close(fd)


class AppendedFile:
    """What is to be appended stands in `unwritten`; `held` is how large the file is.

    `starts`: folders of the administrator's, below which no link is followed.
    """

    flags = _FLAGS

    def __init__(self, path: Path, starts: Sequence[Path] = ()) -> None:
        self.path = path
        self.descriptor = _open(path, starts, self.flags)
        self.held = os.fstat(self.descriptor).st_size
        self.unwritten = memoryview(b"")

    def flush(self) -> None:
        """Write what was taken. StorageAway: not all of it; the rest is still held."""
        while self.unwritten:
            try:
                written = os.write(self.descriptor, self.unwritten)
            except OSError as error:
                raise storage_fault("output", self.path, error) from error
            self.held += written
            self.unwritten = self.unwritten[written:]
            self.on_written()

    def on_written(self) -> None:
        """Called after each write."""

    def settle(self) -> None:
        """See that the file has it all; StorageAway if it lost something, which only a new copy mends.

        A network file system may take bytes and find later that its server has no room for them. Closing a
        descriptor makes it tell; a local one has nothing to tell, and this costs nothing there.
        """
        try:
            os.close(os.dup(self.descriptor))
            size = os.fstat(self.descriptor).st_size
        except OSError as error:
            raise storage_fault("output", self.path, error) from error
        if size != self.held:
            raise StorageUnavailable(f"{self.path} holds {size} of {self.held} bytes; it is written again")

    def close(self) -> None:
        os.close(self.descriptor)


class OutputFile(AppendedFile):
    """Takes a stream from its beginning and appends what the file does not hold yet."""

    def __init__(self, path: Path, starts: Sequence[Path] = ()) -> None:
        super().__init__(path, starts)
        self._seen = 0

    def take(self, pieces: Iterable[bytes]) -> None:
        """Take the next part of the stream, to be written by `flush`, which must have worked before."""
        data = b"".join(pieces)
        known = min(max(self.held - self._seen, 0), len(data))
        self._seen += len(data)
        self.unwritten = memoryview(data)[known:]

    def on_written(self) -> None:
        reach(CrashPoint.RUNNER_OUTPUT_WRITTEN)

    @property
    def size_bytes(self) -> int:
        return self.held


def _open(path: Path, starts: Sequence[Path], flags: int = _FLAGS) -> int:
    try:
        start, names = split_below(path, starts)
        with folder_below(start, names[:-1], made_with=_FOLDER_MODE) as folder:
            return open_file_in(folder, path.name, flags, _MODE)
    except NotOurFile as error:
        raise EngineFault(f"{path} is no regular file; output is not written there") from error
    except OSError as error:
        raise storage_fault("output", path, error) from error
