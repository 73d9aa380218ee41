"""Holds the pipes that carry a container's output to its engine, for the time in which no engine reads them.

Between container and engine stand two named pipes, which the container's shim writes. While the engine is
away they keep up to 64 KiB each, and then the container waits. But if the container ends meanwhile, nobody
holds them any more, the kernel throws away what is in them, and an engine that comes back does not look. So
this process holds a read end of each from early on, and has copies kept beyond its own death (`pipe_keeper`).
It reads nothing while an engine may, and once the engine says that the container has ended it looks at what
is left: that is what came after the end of the engine's journal. It stays in the pipes, so that a runner that
is killed before that is written down finds it again.

The pipes are found at the container's shim, which is the parent of its first process and has its id among its
arguments, and can so be found without the engine. Where it cannot be found (an engine in another namespace of
processes, another runtime) nothing is held, and nothing is lost but this.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from kohakuriver.runner.engines.docker.kernel.container_shims import parent_of, shim_of
from kohakuriver.runner.engines.docker.output.pipe_keeper import PipeKeeper

_PIECE_BYTES = 64 << 10
_STREAMS = ("stdout", "stderr")
_FIRST = "init"
"""What engine 20.10 calls the first process of a container; newer ones (seen with 26.1) take its id."""
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_OWN = Path("/proc/self/fd")
_DELETED = " (deleted)"  # which the kernel adds to the path of what was removed
_SPLICE_F_NONBLOCK = 2
_libc = ctypes.CDLL(None, use_errno=True)


class HeldPipes:
    """Those of one container. Nothing here waits for anybody, but a search takes milliseconds."""

    def __init__(self, container_id: str, keeper: PipeKeeper) -> None:
        self._id = container_id
        self._keeper = keeper
        self._descriptors: dict[str, int] = {}

    def hold(self, pid: int) -> None:
        """Open the pipes and have them kept.

        `pid`: of the container's first process now; 0: unknown, and the shim is searched for, unless they are
        open.
        """
        found = self._found(pid) if pid or not self._descriptors else {}
        if found.keys() >= self._descriptors.keys():
            self.close()
            self._descriptors = found
        else:
            _close(found.values())
        if self._descriptors:
            self._keeper.keep(self._id, list(self._descriptors.values()))
        else:
            self._take_back()

    def rest(self) -> tuple[bytes, bytes]:
        """Return what nobody read, of stdout and stderr. Only once the engine is done with the container."""
        if not self._descriptors:
            self._take_back()
        stdout, stderr = (_content(self._descriptors.get(name)) for name in _STREAMS)
        return stdout, stderr

    def close(self) -> None:
        """Let go of them here; they stay kept."""
        _close(self._descriptors.values())
        self._descriptors = {}

    def drop(self) -> None:
        """The container is gone."""
        self.close()
        self._keeper.drop(self._id)

    def _found(self, pid: int) -> dict[str, int]:
        """Open what its shim has open, which may end while it is looked at, and have closed one or all."""
        found: dict[str, int] = {}
        with contextlib.suppress(OSError):
            shim = parent_of(pid) if pid else shim_of(self._id)
            entries = Path(f"/proc/{shim}/fd").iterdir() if shim is not None else ()
            for entry in entries:
                with contextlib.suppress(OSError):
                    name = self._name_of(entry)
                    if name is not None and name not in found:
                        found[name] = os.open(entry, _FLAGS)
        return found

    def _take_back(self) -> None:
        for descriptor in self._keeper.take(self._id):
            name = self._name_of(_OWN / str(descriptor))
            if name is None or name in self._descriptors:
                os.close(descriptor)
            else:
                self._descriptors[name] = descriptor

    def _name_of(self, entry: Path) -> str | None:
        """Which stream's pipe it is, in a folder of descriptors; None: it is something else."""
        pipe = Path(os.readlink(entry).removesuffix(_DELETED))
        process, _, stream = pipe.name.rpartition("-")
        is_ours = pipe.parent.name == self._id and process in (_FIRST, self._id) and stream in _STREAMS
        return stream if is_ours else None


def _content(descriptor: int | None) -> bytes:
    """What is in the pipe, which keeps it."""
    if descriptor is None:
        return b""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Of one size, so that the whole content fits.
        size = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
        _tee(descriptor, writing, size)
        return _drained(reading)
    finally:
        _close((reading, writing))


def _tee(source: int, target: int, most_bytes: int) -> None:
    """tee(2): what is in one pipe is in the other as well then."""
    if _libc.tee(source, target, ctypes.c_size_t(most_bytes), _SPLICE_F_NONBLOCK) < 0:
        error = ctypes.get_errno()
        if error != errno.EAGAIN:  # nothing is in it
            raise OSError(error, os.strerror(error))


def _drained(descriptor: int) -> bytes:
    pieces: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(descriptor, _PIECE_BYTES):
            pieces.append(piece)
    return b"".join(pieces)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
