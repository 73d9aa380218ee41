"""The store itself: opening with migrations, the one writer, and reads.

Every public method is synchronous and meant for a worker thread: `Store.write` for changes (serialised by
the one-thread executor that `open_store`'s caller uses through `in_writer`), `Store.read` for queries.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from kohakuriver.host.store.migrate import bring_to_newest
from kohakuriver.models.errors import Unavailable

_T = TypeVar("_T")
_READERS = 2


class Store:
    """One SQLite database. `write` and `read` run a function on a connection, off the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")

    async def write(self, change: Callable[[Connection], _T]) -> _T:
        """Run `change` in one transaction in the writer's thread; raises Unavailable if it cannot commit."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._in_transaction, change)

    async def read(self, query: Callable[[Connection], _T]) -> _T:
        """Run `query` on committed rows in a reader's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._on_connection, query)

    def close(self) -> None:
        """Wait for what is under way, then let go of the database."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    def _in_transaction(self, change: Callable[[Connection], _T]) -> _T:
        try:
            with self._engine.connect() as connection, connection.begin():
                connection.execute(text("BEGIN IMMEDIATE"))
                return change(connection)
        except DBAPIError as error:
            raise Unavailable(f"the host's database cannot be written: {error.orig}") from error

    def _on_connection(self, query: Callable[[Connection], _T]) -> _T:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except DBAPIError as error:
            raise Unavailable(f"the host's database cannot be read: {error.orig}") from error


def open_store(db_file: Path) -> Store:
    """Open the database, made if missing and brought to the newest schema.

    The file and its folder are readable by their owner alone. Raises Unavailable when it cannot be opened.
    """
    try:
        db_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db_file.touch(mode=0o600)
        engine = _make_engine(db_file)
        bring_to_newest(engine)
    except (OSError, DBAPIError, sqlite3.Error) as error:
        raise Unavailable(f"the host's database {db_file} cannot be opened: {error}") from error
    return Store(engine)


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
    """WAL lets readers read while the writer commits; FULL makes a commit survive a power cut."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
