"""What the file beside a task's output says about both streams."""

from pathlib import Path

from kohakuriver.models.enums import Stream
from kohakuriver.models.output.places import TIMES_FILE
from kohakuriver.models.output.times import Span, SpanDecoder


def read_times(folder: Path) -> list[Span]:
    return SpanDecoder().feed((folder / TIMES_FILE).read_bytes())


def told_sizes(folder: Path) -> tuple[int, int]:
    """How many bytes of standard output and standard error it has times of."""
    spans = read_times(folder)
    stdout, stderr = (sum(span.size_bytes for span in spans if span.stream is stream) for stream in Stream)
    return stdout, stderr
