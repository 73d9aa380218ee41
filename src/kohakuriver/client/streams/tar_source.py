"""A tar stream read piece by piece, with the certainty at its end that it was whole."""

import tarfile
from collections.abc import Iterator
from typing import IO, cast

from kohakuriver.files.strict_tar import StrictHeader
from kohakuriver.models.errors import EngineFault
from kohakuriver.streams.tar_end import TarEnd

_BUFFER_BYTES = 1 << 18


class TarSource:
    """Pieces as a file that can be read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self._end = TarEnd()

    def read(self, size: int) -> bytes:
        taken = [self._rest]
        have = len(self._rest)
        while have < size and (piece := next(self._pieces, b"")):
            self._end.take(piece)
            taken.append(piece)
            have += len(piece)
        data = b"".join(taken)
        self._rest = data[size:]
        return data[:size]

    def drain(self) -> None:
        """Read what follows the end of the archive; raises EngineFault if that end never came."""
        for piece in self._pieces:
            self._end.take(piece)
        if not self._end.is_whole:
            raise EngineFault("the copy ended before it was whole, so what is here is not all; copy it again")


def open_archive(source: TarSource) -> tarfile.TarFile:
    return tarfile.open(
        fileobj=cast("IO[bytes]", source),  # of which only `read` is used
        mode="r|",
        bufsize=_BUFFER_BYTES,
        tarinfo=StrictHeader,
        encoding="utf-8",
        errors="surrogateescape",
    )
