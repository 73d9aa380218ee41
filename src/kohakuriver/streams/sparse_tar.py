"""Sparse files in tar streams, so that a hole costs nothing on the way; the PAX format 1.0 of GNU tar; pure.

An entry's extended records say the true name and size, and its content begins with a map of the parts that
are there: decimal numbers, one a line, first how many parts, then place and length of each, filled up to a
block. Readers that do not know it see a file of the name `GNUSparseFile.0`. Streams may come from anybody:
what is read of them is bounded, and a map that cannot be is an error.
"""

import copy
import os
import tarfile
from collections.abc import Mapping

from kohakuriver.models.errors import EngineFault
from kohakuriver.streams.tar_end import BLOCK, decimal

LEAST_HOLES_BYTES = 256 << 10
"""What must be saved in one file for it to be told as a sparse one."""
MOST_PARTS, _MOST_PARTS_READ = 10_000, 50_000
MOST_MAP_BYTES = 1 << 20
NAME, REAL_SIZE = "GNU.sparse.name", "GNU.sparse.realsize"
_VERSION = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}

Part = tuple[int, int]
"""Place and length of bytes that are there."""


def parts_of(file: int, size: int) -> list[Part] | None:
    """The parts of an open file that are no holes; None: so little is saved that it is told whole."""
    if os.fstat(file).st_blocks * 512 + LEAST_HOLES_BYTES > size:
        return None
    parts: list[Part] = []
    place = 0
    while place < size:
        try:
            begin = os.lseek(file, place, os.SEEK_DATA)
        except OSError:  # no data behind that
            break
        place = min(os.lseek(file, begin, os.SEEK_HOLE), size)
        if begin < place:
            parts.append((begin, place - begin))
    os.lseek(file, 0, os.SEEK_SET)
    parts = _fewer(parts)
    return parts if sum(length for _, length in parts) + LEAST_HOLES_BYTES <= size else None


def _fewer(parts: list[Part]) -> list[Part]:
    """Closed up where there are too many to tell."""
    gap = 1 << 16
    while len(parts) > MOST_PARTS:
        closed: list[Part] = []
        for begin, length in parts:
            if closed and begin - sum(closed[-1]) < gap:
                closed[-1] = (closed[-1][0], begin + length - closed[-1][0])
            else:
                closed.append((begin, length))
        parts, gap = closed, gap * 2
    return parts


def sparse_head(info: tarfile.TarInfo, parts: list[Part]) -> bytes:
    """Headers and map of a file of `info.size` bytes; the content of its parts follows, one by one."""
    numbers = [len(parts) + 1, *(number for part in parts for number in part), info.size, 0]
    told = "".join(f"{number}\n" for number in numbers).encode()
    told += bytes(-len(told) % BLOCK)
    changed = copy.copy(info)
    changed.name = "GNUSparseFile.0"
    changed.size = len(told) + sum(length for _, length in parts)
    changed.pax_headers = {**info.pax_headers, **_VERSION, NAME: info.name, REAL_SIZE: str(info.size)}
    return changed.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + told


def is_sparse(records: Mapping[str, str]) -> bool:
    """Whether the extended records of an entry describe such a file."""
    return all(records.get(key) == value for key, value in _VERSION.items()) and NAME in records


def without_sparse(records: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in records.items() if not key.startswith("GNU.sparse.")}


class MapReader:
    """The map at the beginning of a sparse file's content: `take` its blocks until there are `parts`."""

    def __init__(self, size: int) -> None:
        self.parts: list[Part] | None = None
        self.bytes_taken = 0
        self._size = size
        self._text = b""
        self._numbers: list[int] = []

    def take(self, block: bytes) -> None:
        """Raises EngineFault for a map that cannot be."""
        self.bytes_taken += len(block)
        if self.bytes_taken > MOST_MAP_BYTES:
            raise EngineFault("the tar stream holds a map of a sparse file that is far too large")
        *lines, self._text = (self._text + block).split(b"\n")
        if len(self._text) > BLOCK:
            raise EngineFault("the tar stream holds a map of a sparse file that cannot be")
        for line in lines:
            self._numbers.append(decimal(line))
            if self._numbers[0] > _MOST_PARTS_READ:
                raise EngineFault("the tar stream holds a sparse file of far too many parts")
            if len(self._numbers) == 1 + 2 * self._numbers[0]:
                self.parts = self._checked()
                return

    def _checked(self) -> list[Part]:
        numbers = iter(self._numbers[1:])
        parts, place = [], 0
        for begin, length in zip(numbers, numbers, strict=True):
            if begin < place or begin + length > self._size:
                raise EngineFault("the tar stream holds a map of a sparse file that cannot be")
            place = begin + length
            parts.append((begin, length))
        return [part for part in parts if part[1]]
