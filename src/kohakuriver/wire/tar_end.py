"""Whether a tar stream that flows by is whole: engines, pipes and archives end a broken one like a whole one.

Only what must be known for that is read: where headers are, and how much content follows each
(POSIX.1-2001, with the size in base 256 as GNU has it).
"""

from kohakuriver.models.errors import EngineFault

_BLOCK = 512
_PAX_LIMIT = 1 << 20
_EMPTY = bytes(_BLOCK)


class TarEnd:
    """Call `take` with each piece, then read `is_whole`. Raises EngineFault for what is no tar stream."""

    def __init__(self) -> None:
        self.is_whole = False
        self._header = bytearray()
        self._skip = 0
        self._pax: bytearray | None = None
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
            step = min(_BLOCK - len(self._header), len(piece) - place)
            self._header += piece[place : place + step]
            place += step
            if len(self._header) == _BLOCK:
                header, self._header = bytes(self._header), bytearray()
                self._read_header(header)

    def _read_header(self, header: bytes) -> None:
        if header == _EMPTY:
            self.is_whole = True
            return
        kind = header[156:157]
        size = _number(header[124:136])
        if kind == b"x":
            if size > _PAX_LIMIT:
                raise EngineFault("the tar stream holds a header that is far too large")
            self._pax = bytearray()
        elif kind not in (b"g", b"L", b"K") and self._next_size is not None:
            size, self._next_size = self._next_size, None
        if kind in b"123456" and kind:  # links, devices, folders and FIFOs have no content
            size = 0
        self._skip = -(-size // _BLOCK) * _BLOCK

    def _end_content(self) -> None:
        if self._pax is None:
            return
        self._next_size = _size_in(bytes(self._pax).rstrip(b"\0"))
        self._pax = None


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 88) - 1)
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise EngineFault("what came is no tar stream") from error


def _size_in(records: bytes) -> int | None:
    """The size that extended records (`<length> <name>=<value>\\n`) give; None if they give none."""
    size, place = None, 0
    try:
        while place < len(records):
            space = records.index(b" ", place)
            length = int(records[place:space])
            if length <= 0:
                break
            name, _, value = records[space + 1 : place + length - 1].partition(b"=")
            if name == b"size":
                size = int(value)
            place += length
    except ValueError as error:
        raise EngineFault("the tar stream holds a header that cannot be read") from error
    return size
