"""Who may touch the host's state on this machine: only its owner, since it has what users run, and hashes of
tokens; one program at a time; none while a restore is half done.

The lock is the kernel's (flock on a file beside the database), so it ends with its holder, however that ends.
The file itself stays: taking it away would let two programs lock two files of one name.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kohakuriver.models.errors import Conflict, Unavailable
from kohakuriver.private_files import is_private


def files_of(db_file: Path) -> list[Path]:
    """The database and the files beside it, in which SQLite keeps the newest rows; none need be there."""
    return [db_file.with_name(f"{db_file.name}{ending}") for ending in ("", "-wal", "-shm", "-journal")]


def restore_marker(db_file: Path) -> Path:
    """The file that is there from the first to the last step of a restore."""
    return db_file.with_name(f"{db_file.name}.restoring")


@contextmanager
def state_held(db_file: Path, *, for_restore: bool = False) -> Iterator[None]:
    """Hold the state of that database; its folder is made if missing.

    Raises Conflict if another program holds it, or if a restore was begun and not ended (unless this is one).
    """
    try:
        db_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = db_file.with_name(f"{db_file.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Unavailable(f"the host's database {db_file} cannot be held: {error}") from error
    try:
        _take(descriptor, db_file)
        if not for_restore and restore_marker(db_file).exists():
            raise Conflict(
                f"a restore of {db_file} was begun and not ended; run `kohakuriver backup restore` again"
            )
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, db_file: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(
            f"a host runs on the database {db_file} already{_holder(descriptor)}; "
            "stop it first, or give this one another DB_FILE"
        ) from error
    except OSError as error:
        raise Unavailable(f"the host's database {db_file} cannot be held: {error.strerror}") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _holder(descriptor: int) -> str:
    number = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
    return f" (process {number})" if number.isdigit() else ""


def check_private(db_file: Path) -> None:
    """Raise Unavailable if another user could have read or made the database; missing files are none."""
    for path in files_of(db_file.resolve()):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not is_private(status):
            raise Unavailable(
                f"{path} must be a file of the user that runs the host and closed to others: chmod 600 {path}"
            )
