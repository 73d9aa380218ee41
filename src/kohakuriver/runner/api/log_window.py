"""A range of a task's output on this node, for a host that cannot read the file itself. Blocking.

Only regular files at the place where this runner writes output are opened, one name at a time and never
through a link, since workloads can write beside them.
"""

import os
import stat
from pathlib import Path

from kohakuriver.models.errors import NotFound
from kohakuriver.models.output_places import OutputPlace

MAX_WINDOW_BYTES = 4 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_window(local_temp_dir: Path, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
    """Return bytes from the offset (fewer at the end, at most `MAX_WINDOW_BYTES`) and the size so far.

    Raises NotFound when this node has no such output.
    """
    folders: list[int] = []
    try:
        folders.append(os.open(local_temp_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for name in ("logs", *place.folders):
            folders.append(os.open(name, _FOLDER, dir_fd=folders[-1]))
        file = os.open(place.file_name, _FILE, dir_fd=folders[-1])
        folders.append(file)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _nothing_of(place)
        return os.pread(file, min(length, MAX_WINDOW_BYTES), offset), status.st_size
    except OSError as error:
        raise _nothing_of(place) from error
    finally:
        for descriptor in folders:
            os.close(descriptor)


def _nothing_of(place: OutputPlace) -> NotFound:
    return NotFound(
        f"this node has no {place.stream.value} of attempt {place.attempt} of task {place.task_id}"
    )
