"""Makes a backup beside a running host: it holds up nobody and is of one moment."""

import os
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from kohakuriver import __version__
from kohakuriver.host.backup.archive import (
    DATABASE_NAME,
    FORMAT,
    KEY_NAME,
    Manifest,
    describe_file,
    write_archive,
)
from kohakuriver.host.store.disk_space import RESERVE_BYTES
from kohakuriver.host.store.sqlite.database_file import DatabaseUnreadable, copied
from kohakuriver.host.store.sqlite.disk import store_size
from kohakuriver.host.store.sqlite.state_lock import check_private
from kohakuriver.models.errors import Conflict, NotFound, Unavailable
from kohakuriver.private_files import read_private, sync_folder


def create_backup(db_file: Path, target: Path) -> Manifest:
    """Write the backup; the target is there complete or not at all.

    Raises NotFound without a database, Conflict if the target exists, Unavailable if it cannot be made or
    others can read the database.
    """
    if not db_file.is_file():
        raise NotFound(f"there is no database at {db_file}; give the host's configuration with --config")
    if os.path.lexists(target):
        raise Conflict(f"{target} is there already; choose another name")
    check_private(db_file)
    made_at = datetime.now(UTC)
    try:
        _check_room(db_file, target.absolute().parent)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
            folder = Path(name)
            schema, cluster_id = _copy_database(db_file, folder / DATABASE_NAME)
            _copy_key(db_file.with_name(KEY_NAME), folder / KEY_NAME)
            manifest = Manifest(
                format=FORMAT,
                program_version=__version__,
                schema=schema,
                cluster_id=cluster_id,
                made_at=made_at.isoformat(),
                files=tuple(describe_file(folder / file) for file in (DATABASE_NAME, KEY_NAME)),
            )
            write_archive(folder / "archive", manifest, folder)
            (folder / "archive").replace(target)
            sync_folder(target.parent)
    except (OSError, DatabaseUnreadable) as error:
        raise Unavailable(f"the backup could not be made: {error}") from error
    return manifest


def _check_room(db_file: Path, folder: Path) -> None:
    """Room for the copy, for the archive of it, and for a host whose disk this may be."""
    size = store_size(db_file)
    needed = (size.file_bytes + size.log_bytes) * 3 // 2 + 2 * RESERVE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Unavailable(
            f"making the backup needs {needed >> 20} MiB in {folder}, which has {free >> 20} MiB free"
        )


def _copy_database(db_file: Path, copy: Path) -> tuple[str, str]:
    """Copy the committed state of one moment, check the copy, return its schema and cluster."""
    with copied(db_file, copy) as database:
        if (damage := database.quick_damage()) is not None:
            raise Unavailable(f"the database {db_file} is damaged, and no backup was made: {damage}")
        schema, cluster_id = database.schema(), database.kept("cluster_id")
    if schema is None or cluster_id is None:
        raise Unavailable(f"no host has ever run on the database {db_file}; there is nothing to back up")
    return schema, cluster_id


def _copy_key(source: Path, copy: Path) -> None:
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(read_private(source))
