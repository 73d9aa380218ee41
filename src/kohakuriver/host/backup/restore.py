"""Puts a backup in the place of the host's state, and marks it as restored.

Rules: never while a host runs; what was there before is put aside, never deleted; a restore that was cut
short leaves a marker, and no host starts until it has been run again.
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kohakuriver.host.backup.archive import DATABASE_NAME, KEY_NAME
from kohakuriver.host.backup.verify import BackupContents, unpack_and_check
from kohakuriver.host.store.restore_mark import META_KEY, RestoreMark, decode_mark
from kohakuriver.host.store.sqlite.database_file import DatabaseUnreadable, opened
from kohakuriver.host.store.sqlite.state_lock import files_of, restore_marker, state_held
from kohakuriver.models.errors import Conflict, Unavailable
from kohakuriver.models.ids import EPOCH_MS, highest_id_at
from kohakuriver.private_files import sync_folder


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored, and the folder with what was there before (None: nothing was)."""

    contents: BackupContents
    previous: Path | None


@dataclass(frozen=True, slots=True)
class _Before:
    """The highest id and attempt of the state that a restore replaces, 0 where it cannot be read."""

    newest_id: int = 0
    attempt: int = 0


def restore_backup(archive: Path, db_file: Path, *, force: bool = False) -> Restored:
    """Restore the backup as the state of that database.

    Raises Conflict while a host runs on it, if there is a state already (without `force`), or if this
    machine's clock stands before the backup; InvalidInput for an archive that is not sound.
    """
    try:
        with state_held(db_file, for_restore=True):
            marker = restore_marker(db_file)
            present = _state_files(db_file)
            if present and not force and not marker.exists():
                raise Conflict(f"{present[0]} is there already; with --force it is put aside")
            with tempfile.TemporaryDirectory(prefix=f".{db_file.name}.", dir=db_file.parent) as name:
                folder = Path(name)
                contents = unpack_and_check(archive, folder)
                _mark(folder / DATABASE_NAME, contents, _before(db_file))
                marker.touch(mode=0o600)
                sync_folder(db_file.parent)
                previous = _put_aside(present, db_file.parent)
                (folder / KEY_NAME).replace(db_file.with_name(KEY_NAME))
                (folder / DATABASE_NAME).replace(db_file)
                sync_folder(db_file.parent)
                marker.unlink()
                sync_folder(db_file.parent)
    except (OSError, DatabaseUnreadable) as error:
        raise Unavailable(f"the backup could not be restored: {error}") from error
    return Restored(contents, previous)


def _mark(database_file: Path, contents: BackupContents, before: _Before) -> None:
    """Write into the unpacked database what the host must not give out again."""
    now = datetime.now(UTC)
    if now < datetime.fromisoformat(contents.manifest.made_at):
        raise Conflict(
            f"the clock of this machine says {now:%Y-%m-%d %H:%M} UTC, but the backup was made at "
            f"{contents.manifest.made_at}; set the clock first"
        )
    with opened(database_file) as database:
        kept = database.kept(META_KEY)
        earlier = () if kept is None else decode_mark(kept).gaps
        now_ms = int(now.timestamp() * 1000)
        last = max(highest_id_at(now_ms), before.newest_id)
        mark = RestoreMark(
            at=now.isoformat(),
            backup_made_at=contents.manifest.made_at,
            newest_id=contents.newest_id,
            # A task cannot be tried as often as once a second, so no two restores meet in a number.
            attempt_floor=max((now_ms - EPOCH_MS) // 1000, before.attempt),
            gaps=(*earlier, (contents.newest_id + 1, last)),
        )
        database.keep(META_KEY, mark.encode())


def _before(db_file: Path) -> _Before:
    """Look into the state that is there; one that cannot be read is why there is a restore, most likely."""
    try:
        with opened(db_file) as database:
            return _Before(database.newest_id(), database.newest_attempt())
    except DatabaseUnreadable:
        return _Before()


def _state_files(db_file: Path) -> list[Path]:
    return [file for file in (*files_of(db_file), db_file.with_name(KEY_NAME)) if os.path.lexists(file)]


def _put_aside(files: list[Path], folder: Path) -> Path | None:
    """Move the files into a new folder beside them."""
    there = [file for file in files if os.path.lexists(file)]
    if not there:
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = Path(tempfile.mkdtemp(prefix=f"before-restore-{stamp}-", dir=folder))
    for file in there:
        file.replace(aside / file.name)
    sync_folder(aside)
    return aside
