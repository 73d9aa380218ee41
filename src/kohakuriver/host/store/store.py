"""The store itself: opening with migrations, the one writer, and reads.

`write` runs changes one after the other in a thread of its own, `read` queries in others. What a write raises
was rolled back: nothing of it is in the store. `write_fault` says while the disk lets nothing be written.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from kohakuriver.host.store.disk import DiskSpace, ReserveFile, disk_fault, disk_space
from kohakuriver.host.store.migrate import bring_to_newest
from kohakuriver.host.store.state_lock import check_private
from kohakuriver.host.store.writes import put_meta
from kohakuriver.models.errors import Unavailable

log = structlog.get_logger()

_T = TypeVar("_T")
_READERS = 2
_LOG_LIMIT = f"journal_size_limit={64 << 20}"
_PROBE_KEY = "last_probe"
_PROBE_BYTES = 128 << 10
"""Less might find room where the next turn finds none, and the host would be ready and not ready by turns."""


class DiskFault(Unavailable):
    """The disk or the file of the database does not let it be written."""


class NewWorkRefused(Unavailable):
    """The disk is full, and the room that is left is kept for ending work."""


class Store:
    """One SQLite database. `write` and `read` run a function on a connection, off the event loop.

    `write_fault`: why the newest write failed, if that was the disk's fault; None once one succeeds.
    """

    def __init__(self, engine: Engine, db_file: Path) -> None:
        self.db_file = db_file
        self.write_fault: str | None = None
        self._engine = engine
        self._reserve_file = ReserveFile(db_file)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")

    async def write(self, change: Callable[[Connection], _T], *, new_work: bool = False) -> _T:
        """Run `change` in one transaction in the writer's thread; raises Unavailable if it cannot commit.

        On a full disk it may be run again, in the room that was kept for that; `new_work` is not.
        """
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._writer, self._write, change, new_work)
        except DiskFault as error:
            self.write_fault = str(error)
            raise
        self.write_fault = None
        return result

    async def probe(self) -> None:
        """Learn whether the store takes a piece as large as a turn's; raises Unavailable if it does not."""
        now = datetime.now(UTC).isoformat()
        for value in (now + " " * _PROBE_BYTES, now):
            await self.write(partial(put_meta, key=_PROBE_KEY, value=value), new_work=True)

    async def keep_reserve_file(self, size_bytes: int) -> None:
        """Set room aside for what ends work; raises OSError where there is none."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self._reserve_file.keep, size_bytes)

    @property
    def is_using_reserve_file(self) -> bool:
        """Whether the room that was set aside is being used: what there is is only for ending work."""
        return self._reserve_file.is_given_up

    async def room(self) -> DiskSpace:
        """Look at the disk of the database; raises OSError."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, disk_space, self.db_file)

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """Run `query` on committed rows in a reader's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._on_connection, query)

    def close(self) -> None:
        """Wait for what is under way, then let go of the database."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    def _write(self, change: Callable[[Connection], _T], new_work: bool) -> _T:
        try:
            return self._in_transaction(change)
        except DiskFault as error:
            if not self._reserve_file.give_up():
                raise
            self._empty_log()
            if new_work:
                raise NewWorkRefused(str(error)) from error
        return self._in_transaction(change)

    def _empty_log(self) -> None:
        """Have what comes written over the log of before; while readers hold that, it grows instead."""
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
        except DBAPIError as error:
            log.warning("log_not_emptied", reason=str(error.orig))

    def _in_transaction(self, change: Callable[[Connection], _T]) -> _T:
        try:
            with self._engine.connect() as connection, connection.begin():
                connection.execute(text("BEGIN IMMEDIATE"))
                return change(connection)
        except DBAPIError as error:
            if fault := disk_fault(self.db_file, error.orig):
                raise DiskFault(f"{fault}; nothing was taken in") from error
            raise Unavailable(f"the host's database cannot be written: {error.orig}") from error

    def _on_connection(self, query: Callable[[Connection], _T]) -> _T:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except DBAPIError as error:
            reason = (
                disk_fault(self.db_file, error.orig) or f"the host's database cannot be read: {error.orig}"
            )
            raise Unavailable(reason) from error


def open_store(db_file: Path) -> Store:
    """Open the database, made if missing and brought to the newest schema.

    The file and its folder are readable only by their owner. Raises Unavailable when it cannot be opened,
    and for one that others can read.
    """
    try:
        db_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_private(db_file)
        db_file.touch(mode=0o600)
        engine = _make_engine(db_file)
        bring_to_newest(engine)
    except (OSError, DBAPIError, sqlite3.Error) as error:
        reason = disk_fault(db_file, error.orig if isinstance(error, DBAPIError) else error) or error
        raise Unavailable(f"the host's database {db_file} cannot be opened: {reason}") from error
    return Store(engine, db_file)


def _make_engine(db_file: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{db_file}",
        poolclass=QueuePool,
        pool_size=_READERS + 1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 30, "isolation_level": None},
    )
    event.listen(engine, "connect", _configure_connection)
    return engine


def _configure_connection(connection: Any, _record: Any) -> None:
    """WAL lets readers read while the writer commits; FULL makes a commit survive a power cut. A log that
    grew while somebody read for long gives its room back."""
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "busy_timeout=30000",
        "foreign_keys=ON",
        _LOG_LIMIT,
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
