"""Holds the pipes that carry a container's output to its engine, for the time in which no engine reads them.

Between container and engine stand two named pipes, which the container's shim writes. While the engine is
away they keep up to 64 KiB each, and then the container waits. But if the container ends meanwhile, nobody
holds them any more, the kernel throws away what is in them, and an engine that comes back does not look. So
this process holds a read end of each from early on, reads nothing while an engine may, and takes what is left
once the engine says that the container has ended: that is what came after the end of the engine's journal.

The pipes are found at the container's shim, which is the parent of its first process and has its id among its
arguments, and can so be found without the engine. Where it cannot be found (an engine in another namespace of
processes, another runtime) nothing is held, and nothing is lost but this.
"""

import contextlib
import os
from pathlib import Path

from kohakuriver.runner.engines.docker.container_shims import parent_of, shim_of

_PIECE_BYTES = 64 << 10
_NAMES = ("init-stdout", "init-stderr")
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class HeldPipes:
    """Those of one container; `close` it. Nothing here waits for anybody, but a search takes milliseconds."""

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def hold(self, container_id: str, pid: int) -> None:
        """Open the pipes unless they are open. `pid`: of its first process; 0: search for its shim."""
        if self._descriptors:
            return
        # Whatever is looked at may end meanwhile; then there is nothing to hold.
        with contextlib.suppress(OSError):
            shim = parent_of(pid) if pid else shim_of(container_id)
            if shim is not None:
                self._descriptors = _open_pipes(container_id, shim)

    def rest(self) -> tuple[bytes, bytes]:
        """Take what nobody read, of stdout and stderr. Only once the engine is done with the container."""
        stdout, stderr = (_drained(self._descriptors.get(name)) for name in _NAMES)
        return stdout, stderr

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors = {}


def _open_pipes(container_id: str, shim: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in Path(f"/proc/{shim}/fd").iterdir():
        with contextlib.suppress(OSError):
            pipe = Path(os.readlink(entry))
            if pipe.name in _NAMES and pipe.parent.name == container_id and pipe.name not in found:
                found[pipe.name] = os.open(entry, _FLAGS)
    return found


def _drained(descriptor: int | None) -> bytes:
    pieces: list[bytes] = []
    with contextlib.suppress(BlockingIOError):
        while descriptor is not None and (piece := os.read(descriptor, _PIECE_BYTES)):
            pieces.append(piece)
    return b"".join(pieces)
