"""How much room a folder takes. Blocking."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kohakuriver.files.system.linkless import folder_below

_BLOCK_BYTES = 512


def folder_size(start: Path, names: Sequence[str]) -> int:
    """Bytes of disk that the folder to which `names` lead from `start` takes; 0 if it cannot be read.

    No link is followed; holes of sparse files count nothing.
    """
    total = 0
    with suppress(OSError), folder_below(start, names, access=os.O_RDONLY) as folder:
        for _, _, files, here in os.fwalk(dir_fd=folder, follow_symlinks=False):
            for name in files:
                with suppress(OSError):
                    total += os.stat(name, dir_fd=here, follow_symlinks=False).st_blocks * _BLOCK_BYTES
    return total
