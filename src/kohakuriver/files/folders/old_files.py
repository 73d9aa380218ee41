"""Files of a folder that nobody has touched for long: counted or removed. Blocking.

Rules: a file is as old as the latest of its reading, its writing and its change of name, owner or mode; no
link is followed; what is mounted inside is left alone; a folder goes once it is empty and as old. Others may
move things about meanwhile, so every step is from the descriptor of the one before.
"""

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from kohakuriver.files.system.kernel_mounts import mount_of
from kohakuriver.files.system.linkless import folder_below

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64
_BREATH_ENTRIES = 500
_BREATH_SECONDS = 0.002
_BLOCK_BYTES = 512


@dataclass(slots=True)
class OldFiles:
    """What was found. `left_out`: folders that lie too deep, or could not be read or emptied."""

    count: int = 0
    size_bytes: int = 0
    left_out: int = 0


def reading_is_noted(folder: Path) -> bool:
    """Whether the file system says when a file was read last; without that, age says nothing."""
    return not os.statvfs(folder).f_flag & os.ST_NOATIME


def old_files(folder: Path, names: tuple[str, ...], before: float, *, removes: bool) -> OldFiles:
    """Count what is older than the unix time in the folder to which `names` lead, and remove it if told to.

    Raises OSError if that folder cannot be opened.
    """
    walk = _Walk(before, removes)
    with folder_below(folder, names, access=os.O_RDONLY) as here:
        walk.mount = mount_of(here)
        walk.look_into(here, 0)
    return walk.found


class _Walk:
    def __init__(self, before: float, removes: bool) -> None:
        self.found = OldFiles()
        self.mount = 0
        self._before = before
        self._removes = removes
        self._seen = 0

    def look_into(self, folder: int, depth: int) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                self._breathe()
                try:
                    if entry.is_dir(follow_symlinks=False):
                        self._look_at_folder(folder, entry.name, depth)
                    else:
                        self._look_at_file(folder, entry.name)
                except FileNotFoundError:
                    continue
                except OSError:
                    self.found.left_out += 1

    def _look_at_folder(self, parent: int, name: str, depth: int) -> None:
        if depth >= _DEEPEST:
            self.found.left_out += 1
            return
        here = os.open(name, _FOLDER, dir_fd=parent)
        try:
            if mount_of(here) != self.mount:
                return
            facts = os.fstat(here)
            self.look_into(here, depth + 1)
        finally:
            os.close(here)
        is_old = max(facts.st_mtime, facts.st_ctime) < self._before
        if self._removes and is_old and self._is_empty(parent, name):
            os.rmdir(name, dir_fd=parent)

    def _look_at_file(self, parent: int, name: str) -> None:
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if max(facts.st_atime, facts.st_mtime, facts.st_ctime) >= self._before or stat.S_ISDIR(facts.st_mode):
            return
        if self._removes:
            os.unlink(name, dir_fd=parent)
        self.found.count += 1
        self.found.size_bytes += facts.st_blocks * _BLOCK_BYTES

    def _is_empty(self, parent: int, name: str) -> bool:
        here = os.open(name, _FOLDER, dir_fd=parent)
        try:
            with os.scandir(here) as entries:
                return next(entries, None) is None
        finally:
            os.close(here)

    def _breathe(self) -> None:
        """Let the program's other threads have their turn."""
        self._seen += 1
        if self._seen % _BREATH_ENTRIES == 0:
            time.sleep(_BREATH_SECONDS)
