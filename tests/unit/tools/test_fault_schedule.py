"""Schedules of faults: they replay, mend all that they break, and break no part twice at once."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fault.schedule import (
    AT_HOST,
    HOST,
    MOST_AT_ONCE,
    SHAPES,
    Fault,
    FaultKind,
    Part,
    make_schedule,
    steps,
)

NODES = ("kr-f1", "kr-f2", "kr-f3")
seeds = st.integers(0, 1 << 40)
lengths = st.sampled_from([5.0, 60.0, 600.0])


@given(seeds, lengths)
def test_the_same_seed_gives_the_same_schedule(seed: int, seconds: float) -> None:
    assert make_schedule(seed, seconds, NODES) == make_schedule(seed, seconds, NODES)


def test_another_seed_gives_another_schedule() -> None:
    assert len({make_schedule(seed, 60, NODES) for seed in range(20)}) == 20


@given(seeds, lengths)
def test_every_fault_is_mended_before_the_end_and_not_before_its_beginning(seed: int, seconds: float) -> None:
    for fault in make_schedule(seed, seconds, NODES):
        assert 0 < fault.begins <= fault.ends <= seconds


@given(seeds)
def test_no_part_has_two_faults_at_once_and_not_too_much_is_broken(seed: int) -> None:
    schedule = make_schedule(seed, 120, NODES)
    for one, other in combinations(schedule, 2):
        assert not (one.overlaps(other) and one.lanes & other.lanes), (one, other)
    for fault in schedule:
        at_once = [other for other in schedule if other.begins <= fault.begins < other.ends]
        assert len(at_once) <= MOST_AT_ONCE


@pytest.mark.parametrize("seed", range(20))  # a rare seed has none in its hour
def test_a_runner_and_its_engine_are_down_together_now_and_then(seed: int) -> None:
    pairs = combinations(make_schedule(seed, 3600, NODES), 2)
    assert any(
        {SHAPES[one.kind].part, SHAPES[other.kind].part} == {Part.ENGINE, Part.PROCESS}
        for one, other in pairs
        if one.overlaps(other) and one.place == other.place
    )


@given(seeds)
def test_faults_look_as_their_kind_says(seed: int) -> None:
    for fault in make_schedule(seed, 120, NODES):
        shape = SHAPES[fault.kind]
        assert fault.amount in shape.amounts
        assert shape.least_seconds - 0.02 <= fault.ends - fault.begins <= shape.most_seconds + 0.02
        assert (fault.place == HOST) is (fault.kind in AT_HOST)
        assert fault.place in (HOST, *NODES)


@given(seeds)
def test_a_minute_brings_a_fault_every_few_seconds_and_an_hour_every_kind(seed: int) -> None:
    assert len(make_schedule(seed, 60, NODES)) >= 10
    assert {fault.kind for fault in make_schedule(seed, 3600, NODES)} == set(FaultKind)


@given(seeds)
def test_steps_break_and_mend_each_fault_in_the_order_of_time(seed: int) -> None:
    schedule = make_schedule(seed, 60, NODES)
    row = steps(schedule)
    assert [moment for moment, _, _ in row] == sorted(moment for moment, _, _ in row)
    assert len(row) == 2 * sum(f.amount if f.kind is FaultKind.FLAP else 1 for f in schedule)
    assert all(fault.begins <= moment <= fault.ends for moment, _, fault in row)
    broken: set[tuple[str, str]] = set()
    for _, begins, fault in row:
        assert bool(fault.lanes & broken) is not begins
        broken = broken | fault.lanes if begins else broken - fault.lanes
    assert not broken


@pytest.mark.parametrize("kind", list(FaultKind))
def test_a_schedule_of_one_kind_holds_that_kind_alone(kind: FaultKind) -> None:
    schedule = make_schedule(1, 60, NODES, [kind])
    assert schedule
    assert {fault.kind for fault in schedule} == {kind}


def test_a_fault_reads_as_a_line() -> None:
    fault = Fault(FaultKind.SLOW, "kr-f1", 1.5, 4.25, 200)
    assert str(fault) == "   1.50 to    4.25 s: slow 200 at kr-f1"
