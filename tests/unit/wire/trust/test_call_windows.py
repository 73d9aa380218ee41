"""Each call is taken once, whatever the order in which calls come."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.wire.trust.call_windows import (
    EPOCH_SECONDS,
    MOST_SENDERS,
    WINDOW,
    CallWindow,
    CallWindows,
    Verdict,
)
from kohakuriver.wire.trust.signing import Stamp


def judge(window: CallWindow, number: int, sender: str = "s", now: float = 0.0) -> Verdict:
    return window.judge(Stamp(window.epoch, sender, number), now)


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=60))
def test_no_number_is_taken_twice(numbers: list[int]) -> None:
    window, taken = CallWindow(), set[int]()
    for number in numbers + numbers:
        verdict = judge(window, number)
        assert verdict is not Verdict.OTHER_EPOCH
        if verdict is Verdict.TAKEN:
            assert number not in taken
            taken.add(number)


def test_numbers_may_overtake_each_other_within_the_window() -> None:
    window = CallWindow()
    numbers = list(range(1, WINDOW))
    random.Random(7).shuffle(numbers)
    assert {judge(window, number) for number in numbers} == {Verdict.TAKEN}
    assert {judge(window, number) for number in numbers} == {Verdict.USED}


def test_what_lies_below_the_window_is_not_taken() -> None:
    window = CallWindow()
    assert judge(window, WINDOW + 5) is Verdict.TAKEN
    assert judge(window, 5) is Verdict.USED
    assert judge(window, 6) is Verdict.TAKEN
    assert judge(window, 10**14) is Verdict.TAKEN
    assert judge(window, 10**14 - WINDOW) is Verdict.USED


def test_a_call_that_was_held_back_is_not_taken_long_after() -> None:
    window = CallWindow()
    held = Stamp(window.epoch, "s", 1)
    assert judge(window, 2, now=1000) is Verdict.TAKEN
    assert window.judge(held, 1000 + EPOCH_SECONDS) is Verdict.OTHER_EPOCH
    assert judge(window, 3, now=1000 + EPOCH_SECONDS) is Verdict.TAKEN
    alone = CallWindow()
    held = Stamp(alone.epoch, "s", 2)
    assert judge(alone, 1, now=1000) is Verdict.TAKEN
    assert alone.judge(held, 999 + EPOCH_SECONDS) is Verdict.TAKEN


def test_processes_that_call_have_numbers_of_their_own() -> None:
    window = CallWindow()
    assert judge(window, 1, "a") is Verdict.TAKEN
    assert judge(window, 1, "b") is Verdict.TAKEN
    assert judge(window, 1, "a") is Verdict.USED


def test_another_epoch_is_said_to_be_one_and_changes_nothing() -> None:
    window = CallWindow()
    assert window.judge(Stamp("-", "s", 1), 0) is Verdict.OTHER_EPOCH
    assert judge(window, 1) is Verdict.TAKEN
    assert window.epoch != CallWindow().epoch


def test_memory_is_bounded_and_nothing_is_taken_again_for_that() -> None:
    window = CallWindow()
    first = window.epoch
    for number in range(MOST_SENDERS):
        assert judge(window, 1, f"sender-{number}") is Verdict.TAKEN
    assert judge(window, 1, "one-more") is Verdict.OTHER_EPOCH
    assert window.epoch != first
    assert window.judge(Stamp(first, "sender-0", 1), 0) is Verdict.OTHER_EPOCH
    assert judge(window, 1, "one-more") is Verdict.TAKEN


def test_each_peer_has_a_window_of_its_own_for_as_long_as_the_process_lives() -> None:
    windows = CallWindows()
    assert windows.of("n1") is windows.of("n1")
    assert windows.of("n1").epoch != windows.of("n2").epoch
