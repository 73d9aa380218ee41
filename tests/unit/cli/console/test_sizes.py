"""Sizes on the command line: read exactly or refused with a sentence."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.cli.console.sizes import age_text, duration_text, parse_size, size_text
from kohakuriver.models.errors import InvalidInput

POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1024", 1024),
        ("256M", 256 << 20),
        ("1.5G", 3 << 29),
        ("2g", 2 << 30),
        ("2GiB", 2 << 30),
        ("2GB", 2 << 30),
        ("0.5K", 512),
        ("1.9", 1),
        (" 1T ", 1 << 40),
    ],
)
def test_a_size_is_read(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "abc", "-1", "1.5.2G", "G", "1e9", "0x10", "256 M B", "١٢", "1_000", "nan", "9" * 30, "99999T" * 2],
)
def test_what_is_no_size_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a size"):
        parse_size(text)


def test_a_size_beyond_any_machine_is_refused() -> None:
    with pytest.raises(InvalidInput, match="larger"):
        parse_size("99999999T")


@given(number=st.integers(0, 1 << 20), unit=st.sampled_from("KMGT"), lower=st.booleans())
def test_units_are_powers_of_1024(number: int, unit: str, lower: bool) -> None:
    if number * 1024 ** POWERS[unit] <= 1 << 60:
        assert parse_size(f"{number}{unit.lower() if lower else unit}") == number * 1024 ** POWERS[unit]


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert 0 <= parse_size(text) <= 1 << 60
    except InvalidInput:
        return


@given(st.integers(0, 1 << 50))
def test_a_written_size_is_near_the_real_one_and_short(amount: int) -> None:
    text = size_text(amount)
    assert len(text) <= 6
    assert parse_size(text) == pytest.approx(amount, rel=0.01, abs=1)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0s"), (8, "8s"), (200, "3m20s"), (3000, "50m"), (4000, "1h06m"), (90000, "25h"), (900000, "10d")],
)
def test_a_duration_is_written_with_two_units_at_most(seconds: int, expected: str) -> None:
    assert duration_text(seconds) == expected


def test_an_age_counts_from_the_moment() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert age_text(now - timedelta(seconds=5), now) == "5s"
    assert age_text(None, now) == "-"
