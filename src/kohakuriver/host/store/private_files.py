"""The database is for its owner alone, as the host's key is: it has what users run, and hashes of tokens."""

from pathlib import Path

from kohakuriver.models.errors import Unavailable
from kohakuriver.private_files import is_private

_BESIDE = ("", "-wal", "-shm", "-journal")
"""SQLite keeps the newest rows in files beside the database."""


def check_private(db_file: Path) -> None:
    """Raise Unavailable if another user could have read or made the database; missing files are none."""
    real = db_file.resolve()
    for path in (real.with_name(real.name + ending) for ending in _BESIDE):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not is_private(status):
            raise Unavailable(
                f"{path} must be a file of the user that runs the host and closed to others: chmod 600 {path}"
            )
