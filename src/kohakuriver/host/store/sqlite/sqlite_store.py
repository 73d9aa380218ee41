"""The store in SQLite: opened with migrations, the one writer, and reads.

Changes run one after the other in a thread of their own, queries in others.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from kohakuriver.host.store.disk_space import DiskSpace, StoreSize
from kohakuriver.host.store.migrate import bring_to_newest
from kohakuriver.host.store.sqlite.dialect import READERS, empty_log, make_engine, write_transaction
from kohakuriver.host.store.sqlite.disk import ReserveFile, disk_fault, disk_space, store_size
from kohakuriver.host.store.sqlite.state_lock import check_private
from kohakuriver.host.store.store import DiskFault, NewWorkRefused, Store
from kohakuriver.models.errors import Unavailable

_T = TypeVar("_T")


class SqliteStore:
    """A `Store` that is one file of SQLite."""

    def __init__(self, engine: Engine, db_file: Path) -> None:
        self.write_fault: str | None = None
        self._engine = engine
        self._db_file = db_file
        self._reserve_file = ReserveFile(db_file)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")

    @property
    def location(self) -> str:
        return str(self._db_file)

    @property
    def is_using_reserve(self) -> bool:
        return self._reserve_file.is_given_up

    async def write(self, change: Callable[[Connection], _T], *, new_work: bool = False) -> _T:
        """Run it in the writer's thread."""
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._writer, self._write, change, new_work)
        except DiskFault as error:
            self.write_fault = str(error)
            raise
        self.write_fault = None
        return result

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """Run it in a reader's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._on_connection, query)

    async def room(self) -> DiskSpace:
        return await asyncio.get_running_loop().run_in_executor(self._readers, disk_space, self._db_file)

    async def keep_reserve(self, size_bytes: int) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, self._reserve_file.keep, size_bytes)

    def size(self) -> StoreSize:
        return store_size(self._db_file)

    def close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    def _write(self, change: Callable[[Connection], _T], new_work: bool) -> _T:
        try:
            return self._in_transaction(change)
        except DiskFault as error:
            if not self._reserve_file.give_up():
                raise
            empty_log(self._engine)
            if new_work:
                raise NewWorkRefused(str(error)) from error
        return self._in_transaction(change)

    def _in_transaction(self, change: Callable[[Connection], _T]) -> _T:
        try:
            with write_transaction(self._engine) as connection:
                return change(connection)
        except DBAPIError as error:
            if fault := disk_fault(self._db_file, error.orig):
                raise DiskFault(f"{fault}; nothing was taken in") from error
            raise Unavailable(f"the host's database cannot be written: {error.orig}") from error

    def _on_connection(self, query: Callable[[Connection], _T]) -> _T:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except DBAPIError as error:
            reason = (
                disk_fault(self._db_file, error.orig) or f"the host's database cannot be read: {error.orig}"
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
        engine = make_engine(db_file)
        bring_to_newest(engine, write_transaction)
    except (OSError, DBAPIError, sqlite3.Error) as error:
        reason = disk_fault(db_file, error.orig if isinstance(error, DBAPIError) else error) or error
        raise Unavailable(f"the host's database {db_file} cannot be opened: {reason}") from error
    return SqliteStore(engine, db_file)
