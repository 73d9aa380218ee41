"""Bytes of one stream that wait, in the order in which they came."""

from collections import deque
from typing import Final

_PIECE_BYTES: Final = 16 << 10


class HeldStream:
    """What comes in small frames is held in large pieces: a frame of one byte would take some hundred."""

    __slots__ = ("_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: deque[bytearray | memoryview] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, data: memoryview) -> None:
        self._size += len(data)
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) + len(data) <= _PIECE_BYTES:
            last += data
        else:
            self._pieces.append(bytearray(data))

    def take(self, most: int) -> memoryview:
        """Return the next bytes, at most so many; there must be some."""
        piece = memoryview(self._pieces.popleft())
        if len(piece) > most:
            self._pieces.appendleft(piece[most:])
            piece = piece[:most]
        self._size -= len(piece)
        return piece

    def clear(self) -> None:
        self._pieces.clear()
        self._size = 0
