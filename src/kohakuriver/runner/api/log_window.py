"""A range of a task's output on this node, for a host that cannot read the file itself. Blocking.

Only regular files at the place where this runner writes output are opened, one name at a time and never
through a link, since workloads can write beside them.
"""

import os
import stat
from pathlib import Path

from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import NotFound
from kohakuriver.models.ids import TaskId

MAX_WINDOW_BYTES = 4 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_window(
    local_temp_dir: Path, task_id: TaskId, stream: Stream, offset: int, length: int
) -> tuple[bytes, int]:
    """Return bytes from the offset (fewer at the end, at most `MAX_WINDOW_BYTES`) and the size so far.

    Raises NotFound when this node has no such output.
    """
    folders: list[int] = []
    try:
        folders.append(os.open(local_temp_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for name in ("logs", str(task_id)):
            folders.append(os.open(name, _FOLDER, dir_fd=folders[-1]))
        file = os.open(f"{stream.value}.log", _FILE, dir_fd=folders[-1])
        folders.append(file)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise NotFound(f"this node has no {stream.value} of task {task_id}")
        return os.pread(file, min(length, MAX_WINDOW_BYTES), offset), status.st_size
    except OSError as error:
        raise NotFound(f"this node has no {stream.value} of task {task_id}") from error
    finally:
        for descriptor in folders:
            os.close(descriptor)
