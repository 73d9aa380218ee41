"""Files of the system's own in places that workloads may reach: opened name by name, never through a link.

Where a folder can be written by others, each name of a path may have become a link to anywhere since it was
looked at. So each is opened from the descriptor of the one before it. The folder that a path begins from is
the administrator's to choose, links in its own name included. Blocking; errors leave as OSError, a link on
the way as ELOOP or ENOTDIR.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO put in the file's place must not wait for its other end.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotOurFile(OSError):
    """What has the name is no regular file."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "it is no regular file")


@contextmanager
def folder_below(
    start: Path, names: Sequence[str | bytes], *, made_with: int | None = None, access: int = os.O_PATH
) -> Iterator[int]:
    """Give a descriptor of the folder that the names lead to; `made_with`: mode of those that are missing.

    `access`: O_RDONLY where it is to be listed or synced, for which it must be readable.
    """
    here = os.open(start, _FOLDER | access)
    try:
        for name in names:
            if made_with is not None:
                with suppress(FileExistsError):
                    os.mkdir(name, made_with, dir_fd=here)
            below = os.open(name, _FOLDER | os.O_NOFOLLOW | access, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def open_file_in(folder: int, name: str, flags: int, mode: int = 0) -> int:
    """Open a regular file of a folder; raises NotOurFile for anything else, without waiting for it."""
    file = os.open(name, flags | _FILE, mode, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotOurFile
    return file


def split_below(path: Path, starts: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that a path is opened from, the first of those that it is in, and the names below.

    The root of the machine for a path that is in none of them, so that no link of it is followed at all.
    """
    for start in (*starts, Path("/")):
        if path.is_relative_to(start):
            return start, path.relative_to(start).parts
    raise OSError(errno.EINVAL, f"{path} is not absolute")
