"""Whether a tar stream that flows by is whole: engines, pipes and archives end a broken one like a whole one.

Only what must be known for that is read: where headers are, and how much content follows each
(POSIX.1-2001, with the size in base 256 as GNU has it). The stream may come from anybody: a size is a number
from 0 to 2^63 in plain digits, and each piece that is taken moves on.
"""

from collections.abc import Iterator

from kohakuriver.models.errors import EngineFault

BLOCK = 512
_MAX_SIZE = 1 << 63
PAX_LIMIT = 1 << 20
EXTENDED = (b"x", b"X", b"g")
"""Kinds of headers that hold records: for the next file (Solaris has a capital), and for all that follow."""
_SIZES = (b"size", b"GNU.sparse.size", b"GNU.sparse.realsize")
EMPTY = bytes(BLOCK)


class TarEnd:
    """Call `take` with each piece, then read `is_whole`. Raises EngineFault for what is no tar stream."""

    def __init__(self) -> None:
        self.is_whole = False
        self._header = bytearray()
        self._skip = 0
        self._pax: bytearray | None = None
        self._for_all = False
        self._next_size: int | None = None

    def take(self, piece: bytes) -> None:
        place = 0
        while place < len(piece) and not self.is_whole:
            if self._skip:
                step = min(self._skip, len(piece) - place)
                if self._pax is not None:
                    self._pax += piece[place : place + step]
                self._skip -= step
                place += step
                if not self._skip:
                    self._end_content()
                continue
            step = min(BLOCK - len(self._header), len(piece) - place)
            self._header += piece[place : place + step]
            place += step
            if len(self._header) == BLOCK:
                header, self._header = bytes(self._header), bytearray()
                self._read_header(header)

    def _read_header(self, header: bytes) -> None:
        if header == EMPTY:
            self.is_whole = True
            return
        kind = header[156:157]
        size = number_in(header[124:136])
        if kind in EXTENDED:
            if size > PAX_LIMIT:
                raise EngineFault("the tar stream holds a header that is far too large")
            self._pax, self._for_all = bytearray(), kind == b"g"
        elif kind not in (b"L", b"K") and self._next_size is not None:
            size, self._next_size = self._next_size, None
        self._skip = content_blocks(kind, size)
        if not self._skip:
            self._end_content()

    def _end_content(self) -> None:
        if self._pax is None:
            return
        size = _size_in(bytes(self._pax).rstrip(b"\0"))
        self._pax = None
        if not self._for_all:
            self._next_size = size
        elif size is not None:
            raise EngineFault("the tar stream gives one size to all of its files, which cannot be")


def number_in(field: bytes) -> int:
    """The size in a header: octal digits, or base 256 with the highest bit set (the next one is its sign)."""
    if field[0] & 0x80:
        number = int.from_bytes(field, "big") & ((1 << 95) - 1)
        if number < _MAX_SIZE:
            return number
        raise EngineFault("the tar stream holds a size that cannot be")
    digits = field.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):
        raise EngineFault("what came is no tar stream")
    return int(digits, 8)


def _decimal(digits: bytes, least: int = 0) -> int:
    """Raises ValueError for all but plain digits of a number that can be a size."""
    if len(digits) > 20 or not digits.isdigit() or not least <= (number := int(digits)) < _MAX_SIZE:
        raise ValueError("that is not a size")
    return number


def decimal(digits: bytes) -> int:
    """A number that can be a size; raises EngineFault for anything else."""
    try:
        return _decimal(digits)
    except ValueError as error:
        raise _unreadable() from error


def content_blocks(kind: bytes, size: int) -> int:
    """How many bytes follow a header: links, devices, folders and FIFOs have no content."""
    return 0 if kind in b"123456" and kind else -(-size // BLOCK) * BLOCK


def records_in(records: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The extended records (`<length> <name>=<value>\\n`) of a header, by name and value."""
    place = 0
    try:
        while place < len(records):
            space = records.index(b" ", place)
            length = _decimal(records[place:space], least=space - place + 1)
            name, _, value = records[space + 1 : place + length - 1].partition(b"=")
            yield name, value
            place += length
    except ValueError as error:
        raise _unreadable() from error


def _size_in(records: bytes) -> int | None:
    """The size that extended records give; None if they give none."""
    size = None
    for name, value in records_in(records):
        if name in _SIZES:
            # Those of sparse files count for readers behind this one.
            told = decimal(value)
            size = told if name == b"size" else size
    return size


def _unreadable() -> EngineFault:
    return EngineFault("the tar stream holds a header that cannot be read")
