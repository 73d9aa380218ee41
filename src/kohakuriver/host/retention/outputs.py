"""Folders of output in shared storage, of tasks that ended long ago. Blocking.

Only folders that are named as this program names them are looked at. What a folder is about is asked of the
store: one of a task that the store does not know is left alone, since a restored database does not know all.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from kohakuriver.files.folders.deletion import delete_folder
from kohakuriver.files.folders.sizes import folder_size
from kohakuriver.files.system.linkless import folder_below
from kohakuriver.models.numbers import whole_number

LOGS = "logs"
_MOST_DIGITS = 19


class OutputFolders:
    """`shared_dir` is SHARED_DIR of this cluster."""

    def __init__(self, shared_dir: Path) -> None:
        self._shared_dir = shared_dir

    def batches(self, highest_id: int, size: int) -> Iterator[list[int]]:
        """Ids up to the highest of which there is a folder, some at a time; raises OSError."""
        with (
            suppress(FileNotFoundError),
            folder_below(self._shared_dir, (LOGS,), access=os.O_RDONLY) as folder,
            os.scandir(folder) as entries,
        ):
            numbers = (_number(entry.name) for entry in entries)
            old = (number for number in numbers if number is not None and number <= highest_id)
            while some := list(islice(old, size)):
                yield some

    def size_of(self, task_id: int) -> int:
        return folder_size(self._shared_dir, (LOGS, str(task_id)))

    def delete(self, task_id: int) -> int | None:
        """Delete the folder; return how many bytes it had, None if it was not there. Raises EngineFault."""
        size_bytes = self.size_of(task_id)
        return size_bytes if delete_folder(self._shared_dir, (LOGS,), str(task_id)) else None


def _number(name: str) -> int | None:
    return None if name.startswith("0") else whole_number(name, _MOST_DIGITS)
