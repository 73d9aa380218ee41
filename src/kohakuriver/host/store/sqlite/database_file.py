"""A database as a file, without the store over it: how backups copy, check and mark one.

Rules: a copy is one file that needs none beside it; what a file from elsewhere holds is read and never run.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kohakuriver.host.store.writes import NEWEST_ORDER_KEY

_BUSY_SECONDS = 30


class DatabaseUnreadable(Exception):
    """What SQLite says of a file that it cannot read or write."""


class DatabaseFile:
    """One file that is open. Each of these may raise `DatabaseUnreadable`, by the way it was opened."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def damage(self) -> str | None:
        """Read it from its first byte to its last; says what is wrong."""
        return self._told_by("PRAGMA integrity_check")

    def quick_damage(self) -> str | None:
        """Look for damage without comparing indexes with their tables."""
        return self._told_by("PRAGMA quick_check")

    def foreign_part(self) -> str | None:
        """Name what it holds beside tables and indexes: views and triggers are none of ours."""
        query = "SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
        row = self._connection.execute(query).fetchone()
        return None if row is None else str(row[0])

    def schema(self) -> str | None:
        return self._value("SELECT version_num FROM alembic_version")

    def kept(self, key: str) -> str | None:
        """What stands under that key."""
        return self._value("SELECT value FROM meta WHERE key = ?", key)

    def keep(self, key: str, value: str) -> None:
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def tasks_by_state(self) -> dict[str, int]:
        return dict(self._connection.execute("SELECT state, count(*) FROM tasks GROUP BY state ORDER BY 1"))

    def nodes(self) -> tuple[str, ...]:
        return tuple(row[0] for row in self._connection.execute("SELECT hostname FROM nodes ORDER BY 1"))

    def count_users(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM users").fetchone()[0])

    def newest_attempt(self) -> int:
        return int(self._connection.execute("SELECT coalesce(max(attempt), 0) FROM tasks").fetchone()[0])

    def newest_id(self) -> int:
        """The highest id that a task has, or an order ever had, 0 for none."""
        order = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?"
        rows = (
            self._connection.execute("SELECT max(id) FROM tasks").fetchone(),
            self._connection.execute("SELECT max(id) FROM orders").fetchone(),
            self._connection.execute(order, (NEWEST_ORDER_KEY,)).fetchone(),
        )
        return max((int(row[0]) for row in rows if row and row[0] is not None), default=0)

    def _told_by(self, check: str) -> str | None:
        faults = self._connection.execute(check).fetchall()
        return None if faults == [("ok",)] else str(faults[0][0])

    def _value(self, query: str, *parameters: str) -> str | None:
        row = self._connection.execute(query, parameters).fetchone()
        return None if row is None else row[0]


@contextmanager
def opened(file: Path) -> Iterator[DatabaseFile]:
    """Open a database that is there, to be read and written."""
    with _connected(file, "mode=rw") as connection:
        yield DatabaseFile(connection)


@contextmanager
def opened_untrusted(file: Path) -> Iterator[DatabaseFile]:
    """Open a database that nobody writes; what its schema holds is not trusted to run anything."""
    with _connected(file, "mode=ro&immutable=1") as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        yield DatabaseFile(connection)


@contextmanager
def copied(db_file: Path, copy: Path) -> Iterator[DatabaseFile]:
    """Copy the committed state of one moment into a new file, which is open meanwhile."""
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with _connected(copy, "mode=rw") as target:
        with _connected(db_file.resolve(), "mode=rw", _BUSY_SECONDS) as source:
            source.backup(target)
        # One file, which needs no companions to be read.
        target.execute("PRAGMA journal_mode=DELETE")
        yield DatabaseFile(target)


@contextmanager
def _connected(file: Path, mode: str, busy_seconds: float = 5) -> Iterator[sqlite3.Connection]:
    uri = f"{file.absolute().as_uri()}?{mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=busy_seconds)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise DatabaseUnreadable(str(error)) from error
