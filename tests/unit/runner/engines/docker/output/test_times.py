"""When what of the output was written: kept beside it, whole, in order, through crashes and full storage."""

import asyncio
import errno
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import EngineFault, InvalidInput
from kohakuriver.models.output.places import TIMES_FILE
from kohakuriver.models.output.times import VERSION, Span, SpanDecoder, encode_spans
from kohakuriver.runner.engines.docker.output import copy as copy_module
from kohakuriver.runner.engines.docker.output.copy import OutputCopy, OutputPaths
from kohakuriver.runner.engines.docker.output.engine_journal import Pieces, decode
from kohakuriver.runner.engines.docker.output.files import reset_output
from support.engines.output_times import read_times

START = 1_790_000_000_000_000_000
MS = 1_000_000

Line = tuple[Stream, int, bytes]
"""Its stream, when it was written in ns, its words."""

milliseconds = st.integers(0, 1 << 43)
spans_of_a_file = st.lists(
    st.builds(Span, st.sampled_from(Stream), milliseconds | st.none(), st.integers(1, 1 << 40)), max_size=30
)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def entry(line: Line) -> bytes:
    """As the engine's journal has it."""
    stream, at, words = line
    message = (
        b"\x0a\x06" + stream.value.encode() + b"\x10" + varint(at) + b"\x1a" + varint(len(words)) + words
    )
    size = len(message).to_bytes(4, "big")
    return size + message + size


def journal_of(lines: Iterable[Line]) -> bytes:
    return b"".join(map(entry, lines))


def alternating(count: int, step_ns: int = 3 * MS) -> list[Line]:
    streams = list(Stream)
    return [(streams[n % 2], START + n * step_ns, b"%d" % n) for n in range(count)]


def in_order(folder: Path) -> list[tuple[Stream, int | None, bytes]]:
    """The output as its times say that it was written, with neighbours of one moment as one."""
    left = {Stream.STDOUT: (folder / "out").read_bytes(), Stream.STDERR: (folder / "err").read_bytes()}
    shown: list[tuple[Stream, int | None, bytes]] = []
    for span in read_times(folder):
        data, left[span.stream] = left[span.stream][: span.size_bytes], left[span.stream][span.size_bytes :]
        if shown and shown[-1][:2] == (span.stream, span.milliseconds):
            data = shown.pop()[2] + data
        shown.append((span.stream, span.milliseconds, data))
    assert left == {Stream.STDOUT: b"", Stream.STDERR: b""}
    return shown


def as_written(lines: Iterable[Line]) -> list[tuple[Stream, int | None, bytes]]:
    return [(stream, at // MS, words + b"\n") for stream, at, words in lines]


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def copy_all(folder: Path, threads: ThreadPoolExecutor, rest: tuple[bytes, bytes] = (b"", b"")) -> None:
    async def scenario() -> None:
        copy = OutputCopy(folder / "journal", OutputPaths(folder / "out", folder / "err"), threads)
        async with asyncio.timeout(20):
            await copy.finish(rest)
        copy.close()

    asyncio.run(scenario())


@given(spans=spans_of_a_file, cuts=st.lists(st.integers(0, 9), max_size=40))
def test_spans_come_back_from_any_pieces_of_the_file(spans: list[Span], cuts: list[int]) -> None:
    data, decoder, found = VERSION + encode_spans(spans, 0), SpanDecoder(), list[Span]()
    whole = len(data)
    for cut in (*cuts, whole):
        found += decoder.feed(data[:cut])
        data = data[cut:]
    assert found == spans
    assert decoder.taken == whole


@given(noise=st.binary(max_size=60))
def test_what_is_no_such_file_is_refused_or_read_and_nothing_else(noise: bytes) -> None:
    try:
        SpanDecoder().feed(noise)
    except InvalidInput:
        return
    assert not noise or noise.startswith(VERSION)


def test_a_line_a_second_costs_three_bytes() -> None:
    spans = [Span(Stream.STDOUT, START // MS + n * 1000, 60) for n in range(100)]
    assert len(encode_spans(spans, 0)) < 310


@given(
    lines=st.lists(
        st.tuples(st.sampled_from(Stream), st.integers(0, 40 * MS), st.binary(max_size=200)), max_size=40
    )
)
def test_a_journal_says_what_was_written_when_and_in_which_order(lines: list[Line]) -> None:
    written = [(stream, START + at, words.replace(b"\n", b"")) for stream, at, words in lines]
    pieces = Pieces()
    decode(journal_of(written), pieces)
    spans = pieces.spans()
    exact = iter(written)
    for span in spans:
        size_bytes = 0
        while size_bytes < span.size_bytes:
            stream, at, words = next(exact)
            assert stream is span.stream
            assert span.milliseconds is not None
            assert abs(at // MS - span.milliseconds) <= 3
            size_bytes += len(words) + 1
        assert size_bytes == span.size_bytes
    assert next(exact, None) is None


def test_a_flood_of_lines_takes_few_records() -> None:
    flood = [(Stream.STDOUT, START + n * 1000, b"y") for n in range(20_000)]
    pieces = Pieces()
    decode(journal_of(flood), pieces)
    assert len(encode_spans(pieces.spans(), 0)) < 100


def test_a_copy_keeps_times_and_order(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    lines = alternating(500)
    (tmp_path / "journal").write_bytes(journal_of(lines))
    copy_all(tmp_path, threads)
    assert in_order(tmp_path) == as_written(lines)


@settings(max_examples=40, deadline=None)
@given(kept=st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400)))
def test_a_copy_after_a_crash_adds_what_is_missing_alone(
    tmp_path_factory: pytest.TempPathFactory, threads: ThreadPoolExecutor, kept: tuple[int, int, int]
) -> None:
    """Each of the three files may have come to any byte, and none at all where an older version began."""
    folder = tmp_path_factory.mktemp("crash")
    lines = alternating(60)
    (folder / "journal").write_bytes(journal_of(lines))
    copy_all(folder, threads)
    for name, size in zip((TIMES_FILE, "out", "err"), kept, strict=True):
        os.truncate(folder / name, min(size, (folder / name).stat().st_size))
    copy_all(folder, threads)
    assert in_order(folder) == as_written(lines)


def test_times_that_cannot_be_read_are_made_anew(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    lines = alternating(20)
    (tmp_path / "journal").write_bytes(journal_of(lines))
    (tmp_path / TIMES_FILE).write_bytes(b"\x02of another version")
    copy_all(tmp_path, threads)
    assert in_order(tmp_path) == as_written(lines)


def test_what_comes_after_the_journal_has_no_time(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    lines = alternating(4)
    (tmp_path / "journal").write_bytes(journal_of(lines))
    copy_all(tmp_path, threads, (b"last out\n", b"last err\n"))
    last = [(Stream.STDOUT, None, b"last out\n"), (Stream.STDERR, None, b"last err\n")]
    assert in_order(tmp_path) == [*as_written(lines), *last]
    # A runner that died before it reported the end has nothing left beside the journal.
    copy_all(tmp_path, threads)
    assert in_order(tmp_path) == [*as_written(lines), *last]


def test_times_wait_for_storage_and_come_before_what_they_tell_of(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_module, "FIRST_STUCK_SECONDS", 0.005)
    monkeypatch.setattr(copy_module, "LONGEST_STUCK_SECONDS", 0.01)
    lines = alternating(200)
    (tmp_path / "journal").write_bytes(journal_of(lines))
    real, calls = os.write, iter(range(1000))

    def write(descriptor: int, data: memoryview) -> int:
        told = sum(span.size_bytes for span in read_times(tmp_path))
        there = (tmp_path / "out").stat().st_size + (tmp_path / "err").stat().st_size
        assert there <= told
        if next(calls) % 2:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, data[:100])

    monkeypatch.setattr(os, "write", write)
    copy_all(tmp_path, threads)
    assert in_order(tmp_path) == as_written(lines)


def test_a_new_attempt_begins_with_no_times_of_a_void_one(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path / "out", tmp_path / "err")
    (tmp_path / TIMES_FILE).write_bytes(b"old")
    reset_output(paths.all)
    assert (tmp_path / TIMES_FILE).read_bytes() == b""
    os.link(tmp_path / TIMES_FILE, tmp_path / "of somebody")
    with pytest.raises(EngineFault, match="second name"):
        reset_output(paths.all)
