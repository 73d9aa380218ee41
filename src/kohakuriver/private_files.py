"""Files that are replaced as a whole, so that whoever reads one sees the old or the new one; most are
only for their owner.

Unless it is said otherwise they are durable: what was replaced stays so, whatever happens to the machine
then.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import InvalidInput


def write_private(path: Path, data: bytes) -> None:
    """Replace a file, durable and readable only by its owner. The folder must exist.

    For one writer of the file at a time.
    """
    with _replacing(path, _draft_of(path), data) as descriptor:
        os.fsync(descriptor)
        reach(CrashPoint.PRIVATE_FILE_DRAFTED)
    sync_folder(path.parent)


def replace_file(
    path: Path,
    data: bytes,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    draft: Path | None = None,
) -> None:
    """Replace a file that may be lost with its machine. Where it has several writers each has its own
    `draft`.
    """
    with _replacing(path, draft or _draft_of(path), data) as descriptor:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


@contextmanager
def _replacing(path: Path, draft: Path, data: bytes) -> Iterator[int]:
    """The descriptor of a draft, which nobody else can open, and which takes the file's place at the end."""
    draft.unlink(missing_ok=True)  # left by a crash
    try:
        descriptor = os.open(
            draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            yield descriptor
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make durable what was made, renamed and deleted in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path, limit_bytes: int = 65536) -> bytes:
    """Read a file of `write_private`; raises InvalidInput if another user could have read or made it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    try:
        if not is_private(os.fstat(descriptor)):
            raise InvalidInput(
                f"{path} must be a file of the user that runs this and closed to others: chmod 600 {path}"
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit_bytes)
    finally:
        os.close(descriptor)


def is_private(status: os.stat_result) -> bool:
    """Whether it is a file that nobody but this user could have read or made."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
