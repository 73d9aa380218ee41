"""When what of a task's output was written, and in which order the two streams were: a codec, pure.

Beside the two files of an attempt's output lies a third one. It begins with a byte for its version; then
comes one record for each span: bytes of one stream that were written at about the same time, with none of
the other stream in between. A record is two varints (7 bits a byte, the lowest first, as in protobuf):

    zigzag(milliseconds since the record before; of the first, since 1970) * 4 + kind
    how many bytes

Kind: 0 stdout, 1 stderr; 2 and 3 are the same for bytes of which nobody knows when they were written, and
their difference of time is 0.
"""

from collections.abc import Iterable
from typing import NamedTuple

from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import InvalidInput

VERSION = b"\x01"
_STREAMS = (Stream.STDOUT, Stream.STDERR)
_UNTIMED = 2
_MOST_VARINT_BYTES = 10


class Span(NamedTuple):
    """Of a stream. `milliseconds` since 1970 by the node's clock; None: not known."""

    stream: Stream
    milliseconds: int | None
    size_bytes: int


def encode_spans(spans: Iterable[Span], before_milliseconds: int) -> bytes:
    """Make records that follow one of that time, 0 at the beginning; the version is not in them."""
    out = bytearray()
    for stream, milliseconds, size_bytes in spans:
        kind = 0 if stream is Stream.STDOUT else 1
        if milliseconds is None:
            _put(out, kind + _UNTIMED)
        else:
            difference = milliseconds - before_milliseconds
            before_milliseconds = milliseconds
            _put(out, (difference * 2 if difference >= 0 else -difference * 2 - 1) * 4 + kind)
        _put(out, size_bytes)
    return bytes(out)


class SpanDecoder:
    """Reads records as they come, in any pieces. `taken`: bytes of whole records and the version so far."""

    def __init__(self) -> None:
        self.taken = 0
        self.milliseconds = 0
        self._rest = b""

    def feed(self, data: bytes) -> list[Span]:
        """Return the spans that are whole now; raises InvalidInput for what is no such file."""
        data, position = self._rest + data, 0
        if not self.taken and data:
            if not data.startswith(VERSION):
                raise InvalidInput("these times of output have a form that is not known")
            position = len(VERSION)
        spans: list[Span] = []
        while (head := _get(data, position)) and (length := _get(data, head[1])):
            position = length[1]
            spans.append(self._span(head[0], length[0]))
        self.taken += position
        self._rest = data[position:]
        return spans

    def _span(self, head: int, size_bytes: int) -> Span:
        difference, kind = head >> 2, head & 3
        if kind >= _UNTIMED:
            return Span(_STREAMS[kind - _UNTIMED], None, size_bytes)
        self.milliseconds += (difference >> 1) ^ -(difference & 1)
        return Span(_STREAMS[kind], self.milliseconds, size_bytes)


def _put(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _get(data: bytes, position: int) -> tuple[int, int] | None:
    """Return a varint and where it ends; None: it is not whole yet."""
    value = shift = 0
    for index in range(position, min(position + _MOST_VARINT_BYTES, len(data))):
        value |= (data[index] & 0x7F) << shift
        if data[index] < 0x80:
            return value, index + 1
        shift += 7
    if len(data) - position >= _MOST_VARINT_BYTES:
        raise InvalidInput("these times of output have a form that is not known")
    return None
