"""Checks a backup from its first byte to its last row, and says what is inside."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.host.backup.archive import DATABASE_NAME, KEY_NAME, Manifest, unpack_archive
from kohakuriver.host.store.migrate import NEWEST
from kohakuriver.host.store.sqlite.database_file import DatabaseFile, DatabaseUnreadable, opened_untrusted
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
    with _as_invalid(archive), opened_untrusted(folder / DATABASE_NAME) as database:
        _check_database(archive, manifest, database)
        return BackupContents(
            manifest=manifest,
            host_fingerprint=fingerprint,
            tasks_by_state=database.tasks_by_state(),
            nodes=database.nodes(),
            users=database.count_users(),
            newest_id=database.newest_id(),
        )


def _check_database(archive: Path, manifest: Manifest, database: DatabaseFile) -> None:
    if (damage := database.damage()) is not None:
        raise InvalidInput(f"{archive} is damaged: its database is not sound: {damage}")
    if (foreign := database.foreign_part()) is not None:
        raise InvalidInput(f"{archive} is no backup of a host: its database holds {foreign!r}")
    if (database.schema(), database.kept("cluster_id")) != (manifest.schema, manifest.cluster_id):
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
    except DatabaseUnreadable as error:
        raise InvalidInput(
            f"{archive} is no backup of a host: its database cannot be read: {error}"
        ) from error
