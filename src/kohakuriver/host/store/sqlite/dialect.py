"""How SQLite is opened and written, and its words for what other databases say otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.compiler import SQLCompiler

from kohakuriver.host.store.statements import Number, Unindexed, Upsert

log = structlog.get_logger()

READERS = 2
_LOG_LIMIT = f"journal_size_limit={64 << 20}"


def make_engine(db_file: Path) -> Engine:
    """One connection for the writer, and one for each reader; they belong to no thread."""
    engine = create_engine(
        f"sqlite:///{db_file}",
        poolclass=QueuePool,
        pool_size=READERS + 1,
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


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Hold the right to write from the first statement on; asked for later, it may be refused half-way."""
    with engine.connect() as connection, connection.begin():
        connection.execute(text("BEGIN IMMEDIATE"))
        yield connection


def empty_log(engine: Engine) -> None:
    """Have what comes written over the log of before; while readers hold that, it grows instead."""
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
    except DBAPIError as error:
        log.warning("log_not_emptied", reason=str(error.orig))


@compiles(Number, "sqlite")
def _number(_type: Number, _compiler: Any, **_options: Any) -> str:
    """Row numbers are given only to a column that is exactly INTEGER."""
    return "INTEGER"


@compiles(Upsert, "sqlite")
def _upsert(upsert: Upsert, compiler: SQLCompiler, **options: Any) -> str:
    statement = insert(upsert.table)
    keys = [column.name for column in upsert.table.primary_key]
    others = {
        column.name: statement.excluded[column.name] for column in upsert.table.c if column.name not in keys
    }
    return compiler.process(statement.on_conflict_do_update(index_elements=keys, set_=others), **options)


@compiles(Unindexed, "sqlite")
def _unindexed(element: Unindexed, compiler: SQLCompiler, **options: Any) -> str:
    """A sum with nothing is the same value, and no index has it."""
    return f"({compiler.process(element.clauses, **options)} || '')"
