"""Pauses grow to their limit and no further, and those of many machines do not fall together."""

from itertools import islice

from kohakuriver.pauses import MAX_PAUSE_SECONDS, Pause, growing_pauses, jittered


def test_pauses_grow_are_jittered_and_bounded() -> None:
    row = list(islice(growing_pauses(), 200))
    assert row[0] <= 0.2
    assert max(row) <= MAX_PAUSE_SECONDS
    assert max(row[:5]) < min(row[20:])
    assert len(set(row[20:])) > 100
    assert all(4.5 <= jittered(5) <= 5.5 for _ in range(100))


def test_pauses_without_jitter_are_exact() -> None:
    assert list(islice(growing_pauses(1.0, 3.0, growth=1.5, jitter=0), 5)) == [1.0, 1.5, 2.25, 3.0, 3.0]


def test_a_pause_holds_until_it_is_over_and_doubles_up_to_its_limit() -> None:
    pause = Pause(first_seconds=1.0, limit_seconds=3.0)
    assert not pause.holds(10.0)
    lengths = []
    for _ in range(4):
        pause.grow(10.0)
        lengths.append(pause.until - 10.0)
    assert lengths == [1.0, 2.0, 3.0, 3.0]
    assert pause.holds(12.9)
    assert not pause.holds(13.0)
