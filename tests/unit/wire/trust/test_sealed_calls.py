"""Sealed calls and answers between two ends: what arrives, what cannot be read, and what is refused."""

from copy import deepcopy

import pytest

from kohakuriver.models.errors import Unauthenticated, Unavailable
from kohakuriver.wire.trust.call_windows import CallWindow
from kohakuriver.wire.trust.identity import Identity, Side
from kohakuriver.wire.trust.sealed_calls import (
    SEAL_BYTES,
    Caller,
    NotTaken,
    ProvenAnswer,
    Received,
    SealedCall,
    receive_call,
)
from kohakuriver.wire.trust.signing import ANSWER_HEADER, read_credential

HOST, NODE = Identity.generate(), Identity.generate()
KEYS = HOST.link_keys(NODE.public_key, Side.HOST)
SECRET = b"AWS_SECRET=canary" * 20


def received(call: SealedCall, side: Side = Side.NODE) -> Received:
    return receive_call(side, KEYS, read_credential(call.credential), "POST", "/api/orders")


def answered(
    caller: Caller, call: SealedCall, body: bytes, status: int = 200, **more: str
) -> tuple[ProvenAnswer, bytes]:
    content, proof = received(call).seal(status, body, more)
    headers = {**more, ANSWER_HEADER: proof}
    return caller.prove(call, KEYS, status, headers, 1000), content


@pytest.mark.parametrize("body", [b"", b"x", SECRET])
def test_a_call_and_its_answer_arrive_and_nobody_else_reads_them(body: bytes) -> None:
    caller = Caller(Side.HOST)
    call = caller.call("n1", KEYS, "POST", "/api/orders", body)
    assert received(call).open(call.content) == body
    proven, content = answered(caller, call, body)
    assert caller.open(call, proven, content) == body
    for sealed in (call.content, content):
        assert len(sealed) == (len(body) + SEAL_BYTES if body else 0)
        assert b"canary" not in sealed


def test_no_two_bodies_are_sealed_alike() -> None:
    """Not even by processes that are copies of each other, memory and all."""
    caller = Caller(Side.HOST)
    copy = deepcopy(caller)
    calls = [each.call("n1", KEYS, "POST", "/api/orders", SECRET) for each in (caller, caller, copy, copy)]
    assert len({call.content for call in calls}) == 4
    answers = {received(calls[0]).seal(200, SECRET, {})[0] for _ in range(3)}
    assert len(answers) == 3


def test_a_call_cannot_be_turned_round() -> None:
    call = Caller(Side.HOST).call("n1", KEYS, "POST", "/api/orders", b"{}")
    with pytest.raises(Unauthenticated):
        received(call, Side.HOST)


def test_an_altered_body_is_not_opened() -> None:
    caller = Caller(Side.HOST)
    call = caller.call("n1", KEYS, "POST", "/api/orders", SECRET)
    other = caller.call("n1", KEYS, "POST", "/api/orders", SECRET)
    flipped = call.content[:-1] + bytes([call.content[-1] ^ 1])
    for content in (flipped, other.content, call.content[:-1], b"", call.content + b"x"):
        with pytest.raises(Unauthenticated):
            received(call).open(content)
    proven, answer = answered(caller, call, SECRET)
    for content in (call.content, answer[:-1], b"", bytes(len(answer))):
        with pytest.raises(Unauthenticated):
            caller.open(call, proven, content)


def test_a_caller_learns_the_epoch_and_its_call_is_taken_once() -> None:
    caller, window = Caller(Side.HOST), CallWindow()
    first = caller.call("n1", KEYS, "POST", "/api/orders")
    with pytest.raises(NotTaken) as refused:
        received(first).take(window, 0)
    proven, _ = answered(caller, first, b"", 401, **refused.value.headers)
    assert caller.must_call_again(first, proven)
    again = caller.call("n1", KEYS, "POST", "/api/orders")
    received(again).take(window, 0)
    with pytest.raises(NotTaken) as refused:
        received(again).take(window, 0)
    proven, _ = answered(caller, again, b"", 401, **refused.value.headers)
    assert not caller.must_call_again(again, proven)
    # After a restart of the receiver neither is taken.
    for call in (first, again):
        with pytest.raises(NotTaken):
            received(call).take(CallWindow(), 0)


def test_an_epoch_is_learnt_from_refusals_alone() -> None:
    caller = Caller(Side.HOST)
    call = caller.call("n1", KEYS, "POST", "/api/orders")
    proven, _ = answered(caller, call, b"", 200, **{"KohakuRiver-Epoch": "e" * 22})
    assert not caller.must_call_again(call, proven)


def test_an_answer_that_is_too_large_or_packed_is_judged_by_its_headers() -> None:
    caller = Caller(Side.HOST)
    call = caller.call("n1", KEYS, "POST", "/api/orders")
    _, proof = received(call).seal(200, bytes(1000), {})
    caller.prove(call, KEYS, 200, {ANSWER_HEADER: proof}, 1000)
    with pytest.raises(Unavailable, match="larger than the 999 bytes"):
        caller.prove(call, KEYS, 200, {ANSWER_HEADER: proof}, 999)
    with pytest.raises(Unavailable, match="packed"):
        caller.prove(call, KEYS, 200, {ANSWER_HEADER: proof, "Content-Encoding": "gzip"}, 1000)
