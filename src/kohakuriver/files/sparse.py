"""Holes of sparse files: kept when a stream is written down, and dug where somebody wrote them out. Blocking.

A stream has no holes, only zeros. What is written here leaves blocks of zeros out, so that they take no room;
the content is the same, byte for byte, as are size and times.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from kohakuriver.descriptors import write_all
from kohakuriver.files.system.calls import punch_hole
from kohakuriver.files.system.linkless import folder_below

_BLOCK = 1 << 16
"""A hole is as long as one of these, or as some: shorter ones would cost more than they give."""
_ZEROS = bytes(_BLOCK)
_CAPABILITIES = "security.capability"
_LEAST_BYTES = 256 << 10
"""Of a file that is read only because it may hold zeros."""
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64


class SparseWriter:
    """Writes a stream into a new, empty file from its beginning; call `finish` after the last piece.

    Up to a block is held back: whether it is zeros shows once it is whole.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._begun = bytearray()
        self._ends_in_hole = False

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        if self._begun:
            missing = _BLOCK - len(self._begun)
            self._begun += view[:missing]
            view = view[missing:]
            if len(self._begun) < _BLOCK:
                return
            self._put(memoryview(bytes(self._begun)))
            self._begun.clear()
        while len(view) >= _BLOCK:
            self._put(view[:_BLOCK])
            view = view[_BLOCK:]
        self._begun += view

    def finish(self) -> None:
        """Write what was held back, and give a file that ends in a hole its whole size."""
        if self._begun:
            self._put(memoryview(bytes(self._begun)))
            self._begun.clear()
        if self._ends_in_hole:
            os.ftruncate(self._file, os.lseek(self._file, 0, os.SEEK_CUR))

    def _put(self, block: memoryview) -> None:
        self._ends_in_hole = not block[0] and bytes(block) == _ZEROS
        if self._ends_in_hole:
            os.lseek(self._file, _BLOCK, os.SEEK_CUR)
        else:
            write_all(self._file, block)


def dig_holes(folder: Path, like: Path | None) -> int:
    """Give back the room of zeros in files below a folder whose namesakes below `like` are sparse.

    `like` None: in all files that are not small. Returns the bytes of disk that were given back. No link is
    followed; what cannot be opened is left. The caller sees to it that nobody writes below `folder`.
    """
    with folder_below(folder, (), access=os.O_RDONLY) as here:
        if like is None:
            return _dig_in(here, None, 0)
        with folder_below(like, (), access=os.O_RDONLY) as there:
            return _dig_in(here, there, 0)


def _dig_in(here: int, there: int | None, depth: int) -> int:
    given_back = 0
    with os.scandir(here) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if depth < _DEEPEST:
                        given_back += _dig_in_folder(here, there, entry.name, depth)
                elif entry.is_file(follow_symlinks=False) and _is_to_be_sparse(here, there, entry.name):
                    given_back += _dig_in_file(here, entry.name)
    return given_back


def _dig_in_folder(here: int, there: int | None, name: str, depth: int) -> int:
    below = os.open(name, _FOLDER, dir_fd=here)
    try:
        if there is None:
            return _dig_in(below, None, depth + 1)
        beside = os.open(name, _FOLDER, dir_fd=there)
        try:
            return _dig_in(below, beside, depth + 1)
        finally:
            os.close(beside)
    finally:
        os.close(below)


def _is_to_be_sparse(here: int, there: int | None, name: str) -> bool:
    if there is None:
        return os.stat(name, dir_fd=here, follow_symlinks=False).st_size >= _LEAST_BYTES
    facts = os.stat(name, dir_fd=there, follow_symlinks=False)
    return stat.S_ISREG(facts.st_mode) and facts.st_blocks * 512 + _BLOCK <= facts.st_size


def _dig_in_file(folder: int, name: str) -> int:
    file = os.open(name, _FILE, dir_fd=folder)
    try:
        if _CAPABILITIES in os.listxattr(file):  # which the kernel takes away with any change
            return 0
        before = os.fstat(file)
        _punch_zeros(file, before.st_size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return (before.st_blocks - os.fstat(file).st_blocks) * 512
    finally:
        os.close(file)


def _punch_zeros(file: int, size: int) -> None:
    place = 0
    while place < size:
        try:
            place = os.lseek(file, place, os.SEEK_DATA) // _BLOCK * _BLOCK
        except OSError:  # no data behind that
            return
        if os.pread(file, _BLOCK, place) == _ZEROS:
            punch_hole(file, place, _BLOCK)
        place += _BLOCK
