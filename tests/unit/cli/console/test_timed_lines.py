"""Times before lines, lines of both streams whole, and moments as users write them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.cli.console.timed_lines import timed_lines
from kohakuriver.cli.params import read_moment
from kohakuriver.client.streams.output_in_order import TimedPiece
from kohakuriver.models.enums import Stream
from kohakuriver.models.errors import InvalidInput

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp() * 1000)
OUT, ERR = Stream.STDOUT, Stream.STDERR


def pieces(*of: tuple[Stream, int | None, bytes]) -> Iterator[TimedPiece]:
    return (TimedPiece(stream, at, 0, data) for stream, at, data in of)


def shown(*of: tuple[Stream, int | None, bytes], with_times: bool = True) -> bytes:
    return b"".join(timed_lines(pieces(*of), with_times=with_times))


def test_each_line_has_its_time_and_one_that_is_not_known_a_dash() -> None:
    said = shown((OUT, AT, b"one\ntwo\n"), (ERR, AT + 1, b"\n"), (OUT, None, b"last"))
    assert said == (
        b"2026-11-29T12:00:00.000Z one\n2026-11-29T12:00:00.000Z two\n2026-11-29T12:00:00.001Z \n"
        b"-                        last"
    )


def test_a_line_is_shown_whole_with_the_time_of_its_beginning() -> None:
    said = shown((OUT, AT, b"beg"), (ERR, AT + 1, b"other\n"), (OUT, AT + 2, b"un\nnext\n"))
    assert said == (
        b"2026-11-29T12:00:00.001Z other\n2026-11-29T12:00:00.000Z begun\n2026-11-29T12:00:00.002Z next\n"
    )


@given(of=st.lists(st.tuples(st.sampled_from(Stream), st.just(AT), st.binary(max_size=9)), max_size=20))
def test_no_byte_of_a_stream_is_lost_or_moved(of: list[tuple[Stream, int | None, bytes]]) -> None:
    one = [(OUT, at, data) for _, at, data in of]
    assert shown(*one, with_times=False) == b"".join(data for _, _, data in of)
    whole = [(stream, at, data.replace(b"\n", b"") + b"\n") for stream, at, data in of]
    assert shown(*whole, with_times=False) == b"".join(data for _, _, data in whole)


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    big = b"x" * (1 << 20)
    lines = timed_lines(pieces((OUT, AT, big), (OUT, AT, big), (OUT, AT, b"\n")), with_times=True)
    assert next(lines).endswith(b"x" * 9)
    assert list(lines) == [b"\n", b""]


def test_a_clock_that_tells_nonsense_is_shown_as_no_time() -> None:
    assert shown((OUT, 1 << 60, b"x\n")).startswith(b"-  ")


@pytest.mark.parametrize(
    ("text", "ago"),
    [("10m", timedelta(minutes=10)), ("1h30m", timedelta(minutes=90)), ("2d", timedelta(days=2))],
)
def test_a_duration_is_before_now(text: str, ago: timedelta) -> None:
    assert read_moment(text, NOW) == NOW - ago


def test_a_time_is_of_its_zone_and_without_one_of_this_machine() -> None:
    assert read_moment("2026-11-29T13:00:00+01:00", NOW) == NOW
    assert read_moment("2026-11-29T12:00:00Z", NOW) == NOW
    assert read_moment("2026-11-29", NOW) == datetime(2026, 11, 29).astimezone(UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "10", "m", "10x", "9" * 9 + "w", "2026-13-01", "-5m"])
def test_what_is_no_time_is_told_the_forms(text: str) -> None:
    with pytest.raises(InvalidInput, match="10m, 1h30m"):
        read_moment(text, NOW)
