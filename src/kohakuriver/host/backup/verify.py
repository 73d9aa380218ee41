"""Checks a backup from its first byte to its last row, and says what is inside."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.host.backup.archive import DATABASE_NAME, KEY_NAME, Manifest, unpack_archive
from kohakuriver.host.store.migrate import NEWEST
from kohakuriver.host.store.writes import NEWEST_ORDER_KEY
from kohakuriver.models.errors import InvalidInput, KohakuRiverError
from kohakuriver.wire.trust.identity import Identity


@dataclass(frozen=True, slots=True)
class BackupContents:
    """What a good backup holds. `newest_id`: the highest id of a task or an order in it, 0 for none."""

    manifest: Manifest
    host_fingerprint: str
    tasks_by_state: dict[str, int]
    nodes: tuple[str, ...]
    users: int
    newest_id: int


def verify_backup(archive: Path) -> BackupContents:
    """Raises InvalidInput if the archive is not a whole, sound backup that this program can restore."""
    # Where the backup lies there was room for it; elsewhere nothing is known.
    writable = os.access(archive.absolute().parent, os.W_OK)
    with tempfile.TemporaryDirectory(
        prefix=".kohakuriver-verify.", dir=archive.absolute().parent if writable else None
    ) as name:
        return unpack_and_check(archive, Path(name))


def unpack_and_check(archive: Path, folder: Path) -> BackupContents:
    """Unpack into an empty folder, closed to others, and check everything there."""
    manifest = unpack_archive(archive, folder)
    try:
        fingerprint = Identity.load_or_create(folder / KEY_NAME).fingerprint
    except KohakuRiverError as error:
        raise InvalidInput(f"{archive} is damaged: its {KEY_NAME} is no key") from error
    with _as_invalid(archive), read_only(folder / DATABASE_NAME) as database:
        _check_database(archive, manifest, database)
        return BackupContents(
            manifest=manifest,
            host_fingerprint=fingerprint,
            tasks_by_state=dict(
                database.execute("SELECT state, count(*) FROM tasks GROUP BY state ORDER BY 1")
            ),
            nodes=tuple(row[0] for row in database.execute("SELECT hostname FROM nodes ORDER BY 1")),
            users=database.execute("SELECT count(*) FROM users").fetchone()[0],
            newest_id=newest_id(database),
        )


def newest_id(database: sqlite3.Connection) -> int:
    """The highest id that a task has, or an order ever had, 0 for none."""
    order = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?"
    rows = (
        database.execute("SELECT max(id) FROM tasks").fetchone(),
        database.execute("SELECT max(id) FROM orders").fetchone(),
        database.execute(order, (NEWEST_ORDER_KEY,)).fetchone(),
    )
    return max((int(row[0]) for row in rows if row and row[0] is not None), default=0)


@contextmanager
def read_only(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a database that nobody writes; what its schema holds is not trusted to run anything."""
    uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        database.execute("PRAGMA trusted_schema=OFF")
        yield database


def _check_database(archive: Path, manifest: Manifest, database: sqlite3.Connection) -> None:
    faults = database.execute("PRAGMA integrity_check").fetchall()
    if faults != [("ok",)]:
        raise InvalidInput(f"{archive} is damaged: its database is not sound: {faults[0][0]}")
    others = database.execute(
        "SELECT name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
    ).fetchall()
    if others:
        raise InvalidInput(f"{archive} is no backup of a host: its database holds {others[0][0]!r}")
    schema = database.execute("SELECT version_num FROM alembic_version").fetchone()
    cluster = database.execute("SELECT value FROM meta WHERE key = 'cluster_id'").fetchone()
    if schema != (manifest.schema,) or cluster != (manifest.cluster_id,):
        raise InvalidInput(f"{archive} is no backup: its manifest and its database differ")
    if manifest.schema > NEWEST:
        raise InvalidInput(
            f"{archive} is of a newer program (schema {manifest.schema}, this one knows {NEWEST}); "
            "install the newer program first"
        )


@contextmanager
def _as_invalid(archive: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise InvalidInput(
            f"{archive} is no backup of a host: its database cannot be read: {error}"
        ) from error
