"""Numbers are read only from plain digits."""

import pytest

from kohakuriver.models.numbers import port_number, whole_number


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "1.0", "٣", "²", "1" * 19, "0x1"])
def test_what_is_no_plain_number_is_none(text: str) -> None:
    assert whole_number(text) is None
    assert port_number(text) is None


def test_a_number_may_begin_with_zeros_and_has_no_more_digits_than_asked_for() -> None:
    assert whole_number("0") == 0
    assert whole_number("007") == 7
    assert whole_number("9" * 18) == 10**18 - 1
    assert whole_number("1234", 3) is None


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("65535", 65535), ("0", None), ("65536", None)])
def test_a_port_is_from_1_to_65535(text: str, port: int | None) -> None:
    assert port_number(text) == port
