"""A file system of a few MiB that can be filled to the last byte and emptied again. Needs root."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

_MIB = 1 << 20


class SmallDisk:
    """A mounted tmpfs; what fills it lies in a file of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filling = path / "filling"

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all the room but so much of it."""
        with self._filling.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        if leave_bytes:
            with self._filling.open("r+b") as file:
                file.truncate(max(0, self._filling.stat().st_size - leave_bytes))

    def empty(self) -> None:
        self._filling.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(path: Path, mib: int) -> Iterator[SmallDisk]:
    """Mount it at the path, made if missing; taken away at the end, whatever is still open there."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={mib * _MIB},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "kr-small-disk", str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
