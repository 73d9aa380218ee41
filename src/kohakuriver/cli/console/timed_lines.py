"""Output with its times before the lines, and lines of both streams whole: pure.

A line is shown when it is whole, so that none of the other stream comes into the middle of it. One that grows
too long is shown in parts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kohakuriver.models.enums import Stream

if TYPE_CHECKING:
    from kohakuriver.client.streams.output_in_order import TimedPiece

_LONGEST_BYTES = 1 << 20
_UNKNOWN = b"-".ljust(len("2026-01-01T00:00:00.000Z"))


@dataclass(slots=True)
class _Begun:
    """A line whose end has not come yet; `prefix`: b"" for one of which a part was shown."""

    prefix: bytes = b""
    data: bytes = b""


def timed_lines(pieces: Iterable["TimedPiece"], *, with_times: bool) -> Iterator[bytes]:
    """Yield what is to be shown."""
    begun: dict[Stream, _Begun] = {}
    for piece in pieces:
        prefix = _prefix(piece.milliseconds) if with_times else b""
        whole, newline, rest = piece.data.rpartition(b"\n")
        before = begun.pop(piece.stream, None)
        if newline:
            first = _Begun(prefix) if before is None else before
            lines = (first.data + whole).replace(b"\n", b"\n" + prefix) if prefix else first.data + whole
            yield first.prefix + lines + b"\n"
            before = None
        if rest:
            line = before or _Begun(prefix)
            line.data += rest
            if len(line.data) > _LONGEST_BYTES:
                yield line.prefix + line.data
                line = _Begun()
            begun[piece.stream] = line
        elif before is not None:
            begun[piece.stream] = before
    yield b"\n".join(line.prefix + line.data for line in begun.values())


def _prefix(milliseconds: int | None) -> bytes:
    if milliseconds is None:
        return _UNKNOWN + b" "
    try:
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (OverflowError, ValueError, OSError):  # a clock that tells no time
        return _UNKNOWN + b" "
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z ".encode()
