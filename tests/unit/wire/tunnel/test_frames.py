"""Headers, ids and sentences: read as they were written, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput
from kohakuriver.wire.tunnel.frames import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SENTENCE_BYTES,
    Header,
    amount_payload,
    frame_of,
    read_amount,
    read_header,
    read_sentence,
    sentence_payload,
    with_client_id,
)

ids = st.integers(0, (1 << 32) - 1)
headers = st.builds(Header, st.integers(0, 255), st.integers(0, 1), ids, st.integers(0, 65535))


@given(headers, st.binary(max_size=100))
def test_a_frame_is_read_as_it_was_written(header: Header, payload: bytes) -> None:
    frame = frame_of(header, payload)
    assert read_header(frame) == header
    assert frame[HEADER_BYTES:] == payload


@given(headers, ids, st.binary(max_size=100))
def test_only_the_id_is_exchanged(header: Header, other: int, payload: bytes) -> None:
    for kind in (bytes, bytearray, memoryview):
        exchanged = with_client_id(kind(frame_of(header, payload)), other)
        assert exchanged == frame_of(header._replace(client_id=other), payload)


@given(st.binary(max_size=20))
def test_whatever_comes_is_a_frame_or_refused(data: bytes) -> None:
    is_frame = len(data) >= HEADER_BYTES and data[1] <= 1
    if is_frame:
        assert read_header(data).type == data[0]
        return
    with pytest.raises(InvalidInput):
        read_header(data)


def test_a_frame_has_an_end() -> None:
    header = Header(3, 0, 1, 80)
    assert len(frame_of(header, bytes(MAX_PAYLOAD_BYTES))) == MAX_FRAME_BYTES
    read_header(frame_of(header, bytes(MAX_PAYLOAD_BYTES)))
    with pytest.raises(InvalidInput):
        read_header(frame_of(header, bytes(MAX_PAYLOAD_BYTES + 1)))


@given(st.text(max_size=700))
def test_a_sentence_is_cut_and_can_be_shown(sentence: str) -> None:
    payload = sentence_payload(sentence)
    assert len(payload) <= MAX_SENTENCE_BYTES
    payload.decode()
    assert read_sentence(memoryview(payload)).isprintable()


@given(st.binary(max_size=700))
def test_whatever_comes_as_a_sentence_can_be_shown(payload: bytes) -> None:
    assert read_sentence(memoryview(payload)).isprintable()


@given(st.binary(max_size=8))
def test_an_amount_has_four_bytes(payload: bytes) -> None:
    amount = read_amount(memoryview(payload))
    assert (amount is None) == (len(payload) != 4)
    assert amount is None or amount_payload(amount) == payload
