"""A tar stream that is cut before each sparse file, for an engine that would write its holes out.

What lies between the cuts is handed on as it came, in pieces as large as they came: of the stream only where
headers are is looked at. A reader behind it gets an empty file in the place of a sparse one; what is in that
is written by whoever cuts. What is kept of a stream in the meantime is bounded.
"""

import tarfile
from dataclasses import dataclass

from kohakuriver.models.errors import EngineFault
from kohakuriver.streams.sparse_tar import LEAST_HOLES_BYTES, NAME, REAL_SIZE, is_sparse, without_sparse
from kohakuriver.streams.tar_end import (
    BLOCK,
    EMPTY,
    EXTENDED,
    PAX_LIMIT,
    content_blocks,
    decimal,
    number_in,
    records_in,
)

_MOST_HEAD_BYTES = 2 << 20
_MOST_FOLDER_BYTES = 1 << 20
_MOST_NAME_BYTES = 4096
_FOLDER, _OLD_SPARSE, _FOR_ALL = b"5", b"S", b"g"
_LONG_NAMES = (b"L", b"K")
_RECORDS_OF_ENTRY = ("path", "size", "linkpath", "hdrcharset")


@dataclass(frozen=True, slots=True)
class SparseFile:
    """`name` and `size` as they are to be; `stored_bytes` of map and content follow, without filling."""

    name: bytes
    size: int
    stored_bytes: int
    empty: bytes
    """The entry of an empty file in its place."""


@dataclass(frozen=True, slots=True)
class _Head:
    """All headers of one entry; `content` bytes follow."""

    length: int
    content: int
    kind: bytes
    header: bytes
    records: dict[str, str]
    is_end: bool = False


class SparseCuts:
    """Call `take` with each piece, and with what follows a sparse file once that is read.

    `folders`: the headers of all folders so far, as many as fit: what is put into one later changes its time.
    """

    def __init__(self) -> None:
        self.folders = bytearray()
        self._held = b""
        self._skip = 0
        self._passes_all = False

    def take(self, piece: bytes) -> tuple[bytes, SparseFile | None, bytes]:
        """Return what may go on, the sparse file that comes then, if any, and what follows its headers."""
        data = self._held + piece if self._held else piece
        self._held = b""
        place = 0
        while place < len(data) and not self._passes_all:
            if self._skip:
                step = min(self._skip, len(data) - place)
                self._skip -= step
                place += step
                continue
            head = _head_at(data, place)
            if head is None:
                self._held = data[place:]
                return data[:place], None, b""
            if is_sparse(head.records):
                found = _sparse_file(head)
                if found is not None:
                    return data[:place], found, data[place + head.length :]
            self._pass(data[place : place + head.length], head)
            place += head.length
        return data, None, b""

    def rest(self) -> bytes:
        """What is held back of a stream that has ended; of a whole one nothing."""
        return self._held

    def _pass(self, headers: bytes, head: _Head) -> None:
        self._passes_all = head.is_end
        self._skip = head.content
        if head.kind == _FOLDER and len(self.folders) + len(headers) <= _MOST_FOLDER_BYTES:
            self.folders += headers


def _head_at(data: bytes, place: int) -> _Head | None:
    """None: more of the stream is needed."""
    begin, records = place, dict[str, str]()
    while place - begin <= _MOST_HEAD_BYTES:
        header = data[place : place + BLOCK]
        if len(header) < BLOCK:
            return None
        place += BLOCK
        kind = header[156:157]
        if header == EMPTY or kind == _OLD_SPARSE:  # which engines refuse
            return _Head(place - begin, 0, kind, header, {}, is_end=True)
        size = number_in(header[124:136])
        if kind in EXTENDED or kind in _LONG_NAMES:
            if size > PAX_LIMIT:
                break
            body = data[place : place + size]
            place += content_blocks(kind, size)
            if len(data) < place:
                return None
            if kind == _FOR_ALL:
                return _Head(place - begin, 0, kind, header, {})
            if kind in EXTENDED:
                records |= _texts(body)
            continue
        told = decimal(records["size"].encode()) if "size" in records else size
        return _Head(place - begin, content_blocks(kind, told), kind, header, records | {"size": str(told)})
    raise EngineFault("the tar stream holds a header that is far too large")


def _texts(body: bytes) -> dict[str, str]:
    found = records_in(body.rstrip(b"\0"))
    return {
        name.decode(errors="surrogateescape"): value.decode(errors="surrogateescape") for name, value in found
    }


def _sparse_file(head: _Head) -> SparseFile | None:
    """None: so little is saved that the engine may write it out."""
    records = head.records
    size, stored = decimal(records.get(REAL_SIZE, "").encode()), decimal(records["size"].encode())
    if size - stored < LEAST_HOLES_BYTES:
        return None
    name = records[NAME].encode(errors="surrogateescape")
    if b"\0" in name or len(name) > _MOST_NAME_BYTES:
        raise EngineFault("the tar stream holds a name that cannot be")
    kept = without_sparse(records).items()
    try:
        info = tarfile.TarInfo.frombuf(head.header, "utf-8", "surrogateescape")
        info.name, info.size = records[NAME], 0
        info.pax_headers = {key: value for key, value in kept if key not in _RECORDS_OF_ENTRY}
        empty = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise EngineFault(f"what came is no tar stream: {error}") from error
    return SparseFile(name, size, stored, empty)
