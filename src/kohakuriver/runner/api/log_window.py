"""A range of a task's output on this node, for a host that cannot read the file itself. Blocking.

Only regular files at the place where this runner writes output are opened, and never through a link.
"""

import os
from pathlib import Path

from kohakuriver.files.system.linkless import folder_below, open_file_in
from kohakuriver.models.errors import NotFound
from kohakuriver.models.output.places import OutputPlace
from kohakuriver.runner.local_temp import LOGS

MAX_WINDOW_BYTES = 4 << 20


def read_window(local_temp_dir: Path, place: OutputPlace, offset: int, length: int) -> tuple[bytes, int]:
    """Return bytes from the offset (fewer at the end, at most `MAX_WINDOW_BYTES`) and the size so far.

    Raises NotFound when this node has no such output.
    """
    try:
        with folder_below(local_temp_dir, (LOGS, *place.folders)) as folder:
            file = open_file_in(folder, place.file_name, os.O_RDONLY)
        try:
            return os.pread(file, min(length, MAX_WINDOW_BYTES), offset), os.fstat(file).st_size
        finally:
            os.close(file)
    except OSError as error:
        raise NotFound(
            f"this node has no {place.part.value} of attempt {place.attempt} of task {place.task_id}"
        ) from error
