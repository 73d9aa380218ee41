"""What a terminal has shown: its last bytes, and where among all of them each lies."""


class Shown:
    """Positions count all bytes that were ever added; the last `most_bytes` of them are here."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept = bytearray()
        self._begin = 0

    @property
    def begin(self) -> int:
        """Position of the oldest byte that is here."""
        return self._begin

    @property
    def end(self) -> int:
        return self._begin + len(self._kept)

    def add(self, data: bytes) -> None:
        self._kept += data
        if (excess := len(self._kept) - self._most) > 0:
            del self._kept[:excess]
            self._begin += excess

    def since(self, position: int, most: int) -> bytes:
        """Return at most that many bytes from there on; the position is within `begin` and `end`."""
        offset = position - self._begin
        return bytes(self._kept[offset : offset + most])
