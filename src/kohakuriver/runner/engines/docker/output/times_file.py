"""The file that says when what of a workload's output was written; `models.output.times` is its form.

Rules: it is written before the bytes that it is about, so that whoever sees output can see its time; like
them it is only appended to. How far it tells is read from it when it is opened, so a copy that begins again
adds only what is missing. A record that was cut by a crash goes.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.output.times import VERSION, Span, SpanDecoder, encode_spans
from kohakuriver.runner.engines.contract.faults import storage_fault
from kohakuriver.runner.engines.docker.output.files import AppendedFile

_PIECE_BYTES = 64 << 10


class TimesFile(AppendedFile):
    """Takes the spans of a journal from its beginning and appends those that the file does not have."""

    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND

    def __init__(self, path: Path, starts: Sequence[Path] = ()) -> None:
        super().__init__(path, starts)
        # Bytes of each stream that the file has times of and that the copy has not come to yet.
        self._told = dict.fromkeys(Stream, 0)
        self._milliseconds = 0
        try:
            self._resume()
        except OSError as error:
            self.close()
            raise storage_fault("output", path, error) from error

    def take(self, spans: Iterable[Span]) -> None:
        """Take the next spans, to be written by `flush`, which must have worked before."""
        new = list(self._untold(spans) if any(self._told.values()) else spans)
        if not new:
            return
        records = encode_spans(new, self._milliseconds)
        self.unwritten = memoryview(records if self.held else VERSION + records)
        timed = (span.milliseconds for span in reversed(new) if span.milliseconds is not None)
        self._milliseconds = next(timed, self._milliseconds)

    def _untold(self, spans: Iterable[Span]) -> Iterable[Span]:
        for span in spans:
            known = min(self._told[span.stream], span.size_bytes)
            self._told[span.stream] -= known
            if known < span.size_bytes:
                yield span._replace(size_bytes=span.size_bytes - known)

    def _resume(self) -> None:
        decoder, position = SpanDecoder(), 0
        try:
            while data := os.pread(self.descriptor, _PIECE_BYTES, position):
                position += len(data)
                for span in decoder.feed(data):
                    self._told[span.stream] += span.size_bytes
        except InvalidInput:  # nothing that this version can go on with: all of it is made anew
            decoder, self._told = SpanDecoder(), dict.fromkeys(Stream, 0)
        if decoder.taken < self.held:
            os.ftruncate(self.descriptor, decoder.taken)
            self.held = decoder.taken
        self._milliseconds = decoder.milliseconds
