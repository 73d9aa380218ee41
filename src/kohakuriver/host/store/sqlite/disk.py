"""What keeps the database's file from being written or read, as sentences; how large it is, how much room its
disk has, and the last room there, which is kept for what ends work.

A fault of the disk (full, read-only, an input/output error, a damaged file) stands until a write succeeds.
Any other error of the database is a defect of one transaction and says nothing about the next.
"""

import os
import sqlite3
from pathlib import Path

import structlog

from kohakuriver.host.store.disk_space import DiskSpace, StoreSize, in_mib

log = structlog.get_logger()

_SENTENCES = {
    "SQLITE_FULL": "the disk of the host's database is full: {file}, free space on it {free}",
    "SQLITE_IOERR": "the disk of the host's database fails ({error}): {file}, free space on it {free}",
    "SQLITE_READONLY": "the file system of the host's database is read-only: {file}",
    "SQLITE_CANTOPEN": "the host's database cannot be opened for writing: {file}",
    "SQLITE_BUSY": "another program holds the host's database: {file}",
    "SQLITE_CORRUPT": "the host's database is damaged: {file}; stop the host and restore a backup",
    "SQLITE_NOTADB": "the host's database is damaged: {file}; stop the host and restore a backup",
}


def disk_space(db_file: Path) -> DiskSpace:
    """Ask the file system; raises OSError. Blocks where that is on a network."""
    figures = os.statvfs(db_file.parent)
    free = figures.f_bfree if os.geteuid() == 0 else figures.f_bavail
    return DiskSpace(free * figures.f_frsize, figures.f_blocks * figures.f_frsize)


def disk_fault(db_file: Path, error: BaseException | None) -> str | None:
    """Say what is wrong with the disk or the file; None if the error is of another kind."""
    if not isinstance(error, sqlite3.Error):
        return None
    name = getattr(error, "sqlite_errorname", None) or ""
    sentence = _SENTENCES.get("_".join(name.split("_")[:2]))
    if sentence is None:
        return None
    return sentence.format(file=db_file, error=f"{error}, {name}", free=_free_text(db_file))


def _free_text(db_file: Path) -> str:
    try:
        return in_mib(disk_space(db_file).free_bytes)
    except OSError as error:
        return f"unknown ({error.strerror})"


def store_size(db_file: Path) -> StoreSize:
    """Look at the files; blocks, so call it off the event loop. A file that is not there has no size.

    Raises OSError when the disk cannot be asked.
    """
    return StoreSize(
        file_bytes=_size(db_file),
        log_bytes=_size(db_file.with_name(f"{db_file.name}-wal")),
        free_bytes=disk_space(db_file).free_bytes,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class ReserveFile:
    """Room for what ends work when nothing else is left: a file that is then given up.

    Others may fill the disk as well. Kills, refusals and reports of ends need little, and that little is
    taken from them in time. Where a file system gives room out twice (copy on write), this is a hope and no
    promise.

    The file `<database>.reserve`. Used by the store's writer thread, but for `is_given_up`."""

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
