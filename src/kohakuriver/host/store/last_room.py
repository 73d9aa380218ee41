"""Room on the database's disk for what ends work when nothing else is left: a file that is then given up.

Others may fill the disk as well. Kills, refusals and reports of ends need little, and that little is taken
from them in time. Where a file system gives room out twice (copy on write), this is a hope and no promise.
"""

import os
from pathlib import Path

import structlog

log = structlog.get_logger()


class LastRoom:
    """The file `<database>.reserve`. Used by the store's writer thread, but for `is_given_up`."""

    def __init__(self, db_file: Path) -> None:
        self._path = db_file.with_name(f"{db_file.name}.reserve")
        self.is_given_up = False

    def keep(self, size_bytes: int) -> None:
        """Have the file there in that size; raises OSError where there is no room for it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(descriptor).st_size != size_bytes:
                os.ftruncate(descriptor, 0)
                os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError:
            os.ftruncate(descriptor, 0)
            raise
        finally:
            os.close(descriptor)
        self.is_given_up = False

    def give_up(self) -> bool:
        """Give the room back to the disk; tells whether there was any."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            size_bytes = os.fstat(descriptor).st_size
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        if size_bytes:
            self.is_given_up = True
            log.warning("last_room_given_up", bytes=size_bytes, meaning="the disk of the database is full")
        return bool(size_bytes)
