"""How large the database is and how much room its disk has left."""

from dataclasses import dataclass
from pathlib import Path

from kohakuriver.host.store.disk_faults import disk_room


@dataclass(frozen=True, slots=True)
class StoreSize:
    """`log_bytes`: SQLite's write-ahead log beside the database."""

    file_bytes: int
    log_bytes: int
    free_bytes: int


def store_size(db_file: Path) -> StoreSize:
    """Look at the files; blocks, so call it off the event loop. A file that is not there has no size.

    Raises OSError when the disk cannot be asked.
    """
    return StoreSize(
        file_bytes=_size(db_file),
        log_bytes=_size(db_file.with_name(f"{db_file.name}-wal")),
        free_bytes=disk_room(db_file).free_bytes,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
