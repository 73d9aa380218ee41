"""Reads the journal that the engine's `local` log driver keeps of a container; pure but for `JournalReader`.

Why the file and not the logs call of the API: engine 20.10 loses the newline of lines longer than 16 KiB
when it reads its journal, can miss the last entries when it is followed, and serves short lines at a few
MB/s. The file has every byte. It is one file that only grows (see `LOG_CONFIG`).

Format (moby `daemon/logger/local`, unchanged since 18.09): entries of size, message, size again; sizes are
4 bytes big-endian; the message is protobuf LogEntry: 1 source, 2 time in ns, 3 line without its newline,
4 partial, 5 partial metadata (1: last piece of its line). A piece that is partial and not the last has no
newline behind it.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.output.times import Span

_HEADER = 4
_CHUNK_BYTES = 512 << 10
_STDERR_MARK = ord("e")  # fourth letter of the source
# Offsets within an entry as the engine writes it: 0a 06 source(6) 10 time(9) 1a length line
_SOURCE_LETTER, _TIME_TAG, _TIME, _TIME_END, _LINE_TAG, _LINE_LENGTH = 9, 12, 13, 21, 22, 23
# The upper bytes of an entry's time and the tag behind it: the same for 2^21 ns, which are about 2 ms.
_MOMENT = 16
_NS_PER_MS = 1_000_000


@dataclass(slots=True)
class Pieces:
    """Output found in a stretch of the journal, in order for each stream.

    `turns`: where the other stream has its turn, or time has gone on: the stream's list, how many pieces it
    had, and the time in ms. `moment`: what its entry has there, if it is a whole line.
    """

    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    turns: list[tuple[list[bytes], int, int]] = field(default_factory=list)
    moment: bytes = b""
    milliseconds: int = 0
    last: list[bytes] | None = None

    def turn(self, chosen: list[bytes], buffer: bytes, position: int) -> None:
        """Begin one with the entry at that position, if it is written as the engine writes whole lines."""
        moment = buffer[position + _MOMENT : position + _LINE_LENGTH]
        if moment != self.moment:
            self.moment = moment
            self.milliseconds = _varint(buffer, position + _TIME)[0] // _NS_PER_MS
        self.last = chosen
        self.turns.append((chosen, len(chosen), self.milliseconds))

    def spans(self) -> list[Span]:
        """Say what of it was written when, in the order of the journal."""
        spans: list[Span] = []
        out_end, err_end = len(self.stdout), len(self.stderr)
        for pieces, begin, milliseconds in reversed(self.turns):
            if pieces is self.stdout:
                stream, end, out_end = Stream.STDOUT, out_end, begin
            else:
                stream, end, err_end = Stream.STDERR, err_end, begin
            if size_bytes := sum(map(len, pieces[begin:end])):
                spans.append(Span(stream, milliseconds, size_bytes))
        spans.reverse()
        return spans


def decode(buffer: bytes, pieces: Pieces) -> int:
    """Append what the complete entries of `buffer` hold; return how many bytes they take.

    Raises EngineFault for bytes that are no journal.
    """
    position, end = 0, len(buffer)
    while end - position >= _HEADER:
        size = buffer[position : position + _HEADER]
        stop = position + _HEADER + int.from_bytes(size, "big")
        after = stop + _HEADER
        if after > end:
            break
        if buffer[stop:after] != size:
            raise EngineFault("the engine's journal of this container is damaged; its output is incomplete")
        line_start = position + _LINE_LENGTH + 1
        length = end  # of no line: it would not fit
        in_turn = buffer[position + _MOMENT : position + _LINE_LENGTH] == pieces.moment
        # A whole line as the engine writes it.
        if (
            line_start <= stop
            and buffer[position + _TIME_TAG] == 0x10
            and (in_turn or (buffer[position + _TIME_END] < 0x80 and buffer[position + _LINE_TAG] == 0x1A))
        ):
            length = buffer[line_start - 1]
            if length >= 0x80:
                length, line_start = _varint(buffer, line_start - 1)
        if line_start + length == stop:
            chosen = pieces.stderr if buffer[position + _SOURCE_LETTER] == _STDERR_MARK else pieces.stdout
            if not in_turn or chosen is not pieces.last:
                pieces.turn(chosen, buffer, position)
            chosen.append(buffer[line_start:stop] + b"\n")
        else:
            _decode_general(buffer[position + _HEADER : stop], pieces)
        position = after
    return position


def _decode_general(message: bytes, pieces: Pieces) -> None:
    fields = _fields(message)
    chosen = pieces.stderr if fields.get(1) == b"stderr" else pieces.stdout
    line, time, partial = fields.get(3, b""), fields.get(2), fields.get(5)
    pieces.moment = b""
    pieces.turns.append((chosen, len(chosen), time // _NS_PER_MS if isinstance(time, int) else 0))
    chosen.append(line if isinstance(line, bytes) else b"")
    is_last = isinstance(partial, bytes) and _fields(partial).get(1) == 1
    if not fields.get(4) or is_last:
        chosen.append(b"\n")


def _fields(message: bytes) -> dict[int, bytes | int]:
    """Fields of a protobuf message by number; of a repeated one the last."""
    fields: dict[int, bytes | int] = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            fields[tag >> 3], position = _varint(message, position)
        elif tag & 7 == 2:
            length, position = _varint(message, position)
            fields[tag >> 3] = message[position : position + length]
            position += length
        else:
            raise EngineFault("the engine's journal of this container has a form that is not known")
    return fields


def _varint(buffer: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        try:
            byte = buffer[position]
        except IndexError as error:
            raise EngineFault("the engine's journal of this container is damaged") from error
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def journal_path(docker_root: Path, container_id: str) -> Path:
    return docker_root / "containers" / container_id / "local-logs" / "container.log"


class JournalReader:
    """Gives the entries of one journal from its beginning on, a stretch at a time; not for two threads."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._offset = 0

    def has_more(self) -> bool:
        return os.fstat(self._fd).st_size > self._offset

    def read(self) -> Pieces:
        """Decode the next stretch; empty pieces at the present end."""
        pieces = Pieces()
        wanted = _CHUNK_BYTES
        while True:
            buffer = os.pread(self._fd, wanted, self._offset)
            used = decode(buffer, pieces)
            if used or len(buffer) < wanted:
                self._offset += used
                return pieces
            wanted *= 2  # an entry longer than the stretch

    def close(self) -> None:
        os.close(self._fd)
