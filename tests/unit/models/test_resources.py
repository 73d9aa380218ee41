from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.resources import (
    Demand,
    NodeCapacity,
    NumaNode,
    Usage,
    fits,
    shortage,
)
from kohakuriver.models.spec.amounts import check_cores, exact
from kohakuriver.models.spec.targets import Target

GIB = 1 << 30
CAPACITY = NodeCapacity(
    cores=8,
    memory_bytes=16 * GIB,
    numa=(NumaNode(0, (0, 1, 2, 3), 8 * GIB), NumaNode(1, (4, 5, 6, 7), 8 * GIB)),
    gpus=(0, 1, 2),
)

demands = st.builds(
    Demand,
    cores=st.integers(0, 10) | st.integers(10, 9_999).map(lambda part: exact(part / 1000)),
    memory_bytes=st.integers(0, 18).map(lambda gib: gib * GIB),
    target=st.none() | st.builds(Target, st.just("n1"), st.none() | st.integers(0, 2)),
    gpus=st.lists(st.integers(0, 3), unique=True, max_size=3).map(tuple),
)


def on(numa: int | None, **wanted: Any) -> Demand:
    return Demand(target=Target("n1", numa), **wanted)


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        (Demand(cores=9), "9 cores wanted, 8 of 8 free"),
        (Demand(memory_bytes=17 * GIB), "17,408 MiB memory wanted, 16,384 MiB of 16,384 MiB free"),
        (on(0, cores=5), "5 cores wanted on NUMA node 0, 4 of 4 free"),
        (on(1, memory_bytes=9 * GIB), "memory wanted on NUMA node 1"),
        (on(7), "has no NUMA node 7"),
        (Demand(gpus=(1, 9, 5)), "has no GPU 9, 5"),
    ],
)
def test_what_never_fits_says_which_part_is_short(demand: Demand, words: str) -> None:
    assert words in (shortage(demand, CAPACITY, Usage()) or "")


def test_what_is_used_is_missing_for_the_next() -> None:
    used = Usage()
    used.take(Demand(cores=7, memory_bytes=12 * GIB, gpus=(1,)))
    assert shortage(Demand(cores=2), CAPACITY, used) == "2 cores wanted, 1 of 8 free"
    assert shortage(Demand(cores=1), CAPACITY, used) is None
    assert "memory" in (shortage(Demand(memory_bytes=5 * GIB), CAPACITY, used) or "")
    assert shortage(Demand(gpus=(0, 1)), CAPACITY, used) == "GPU 1 in use"
    assert shortage(Demand(gpus=(0, 2)), CAPACITY, used) is None


def test_parts_of_a_core_add_up_to_all_of_them_and_no_further() -> None:
    for part in (0.1, 0.3, 0.7, 0.001, 0.125):
        used, count = Usage(), 0
        while shortage(on(0, cores=part), CAPACITY, used) is None:
            used.take(on(0, cores=part))
            count += 1
        assert count == int(4 / part + 1e-6), part
        for _ in range(count):
            used.give_back(on(0, cores=part))
        assert (used, used.cores) == (Usage(), 0)
    used = Usage(cores=7.9)
    assert shortage(Demand(cores=0.2), CAPACITY, used) == "0.2 cores wanted, 0.1 of 8 free"
    assert shortage(Demand(cores=0.1), CAPACITY, used) is None


@pytest.mark.parametrize(
    ("amount", "form"), [(2, "2"), (2.0, "2"), (0.5, "0.5"), (1.23456, "1.235"), (0, "0")]
)
def test_an_amount_of_cores_has_one_form(amount: float, form: str) -> None:
    assert str(check_cores(amount)) == form


@pytest.mark.parametrize("amount", [-1, -0.5, 0.009, float("nan"), float("inf"), 10_001])
def test_what_is_no_amount_of_cores_is_refused(amount: float) -> None:
    with pytest.raises(InvalidInput):
        check_cores(amount)


def test_each_numa_node_has_its_own_room() -> None:
    used = Usage()
    used.take(on(0, cores=4, memory_bytes=8 * GIB))
    assert "on NUMA node 0" in (shortage(on(0, cores=1), CAPACITY, used) or "")
    assert shortage(on(1, cores=4, memory_bytes=8 * GIB), CAPACITY, used) is None


def test_a_task_without_limits_takes_nothing_and_fits_a_full_node() -> None:
    used = Usage()
    used.take(Demand(cores=8, memory_bytes=16 * GIB))
    free = Demand(cores=0, memory_bytes=0)
    assert shortage(free, CAPACITY, used) is None
    before = used.copy()
    used.take(free)
    before.tasks += 1
    assert used == before


def test_less_room_than_nothing_is_told_as_none() -> None:
    assert shortage(Demand(cores=1), CAPACITY, Usage(cores=12)) == "1 core wanted, 0 of 8 free"


def test_a_copy_does_not_change_with_its_original() -> None:
    used = Usage()
    copy = used.copy()
    used.take(Demand(cores=1, memory_bytes=1, gpus=(0,), target=Target("n1", 0)))
    assert copy == Usage()


@given(st.lists(demands, max_size=8), st.randoms())
def test_what_was_given_back_was_never_taken(taken: list[Demand], order: object) -> None:
    used, held = Usage(), []
    for demand in taken:
        if shortage(demand, CAPACITY, used) is None:
            used.take(demand)
            held.append(demand)
    order.shuffle(held)  # type: ignore[attr-defined]
    for demand in held:
        used.give_back(demand)
    assert used == Usage()


@given(st.lists(demands, max_size=8), demands)
@example([], on(7))
@example([on(0, cores=4)], on(0, cores=1))
@example([Demand(gpus=(0,))], Demand(gpus=(0,)))
def test_fits_is_the_same_as_no_shortage(taken: list[Demand], demand: Demand) -> None:
    used = Usage()
    for earlier in taken:
        used.take(earlier)
    assert fits(demand, CAPACITY, used) == (shortage(demand, CAPACITY, used) is None)
