import pytest
from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import EPOCH_MS, TaskIdGenerator, highest_id_at, parse_task_id

NOW_MS = EPOCH_MS + 90_000_000_000


@given(st.lists(st.integers(-5_000, 5_000), min_size=1, max_size=60), st.integers(0, 1023))
def test_ids_only_grow_when_the_clock_steps(steps: list[int], node_part: int) -> None:
    generator = TaskIdGenerator(node_part)
    now = NOW_MS
    ids = []
    for step in steps:
        now += step
        ids.append(generator.next(now))
    assert ids == sorted(set(ids))


def test_more_ids_than_fit_into_one_millisecond_still_grow() -> None:
    generator = TaskIdGenerator(7)
    ids = [generator.next(NOW_MS) for _ in range(10_000)]
    assert ids == sorted(set(ids))


@given(st.integers(0, 1023), st.integers(0, 1023), st.integers(-10_000, 10_000))
def test_a_restart_never_repeats_an_id(first_part: int, second_part: int, step: int) -> None:
    last = TaskIdGenerator(first_part).next(NOW_MS)
    assert TaskIdGenerator(second_part, last=last).next(NOW_MS + step) > last


def test_two_hosts_never_give_the_same_id() -> None:
    one, other = TaskIdGenerator(1), TaskIdGenerator(2)
    assert not {one.next(NOW_MS) for _ in range(5_000)} & {other.next(NOW_MS) for _ in range(5_000)}


def test_a_clock_before_the_epoch_gives_ids_that_can_be_read_back() -> None:
    task_id = TaskIdGenerator(0).next(0)
    assert parse_task_id(str(task_id)) == task_id


@pytest.mark.parametrize("node_part", [-1, 1024])
def test_a_node_part_that_does_not_fit_its_bits_is_refused(node_part: int) -> None:
    with pytest.raises(ValueError, match="0 to 1023"):
        TaskIdGenerator(node_part)


@given(st.integers(1, (1 << 63) - 1))
def test_an_id_is_read_as_string_and_as_number(value: int) -> None:
    assert parse_task_id(value) == parse_task_id(str(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "+1",
        " 1",
        "1\n",
        "1.0",
        "1e3",
        "0x10",
        "abc",
        "١٢٣",
        "²",
        "1_000",
        "9" * 20,
        "9" * 19,
        0,
        -1,
        1 << 63,
        True,
        1.0,
        None,
        ["1"],
        "../1",
        pytest.param(10**5000, id="huge number"),
        pytest.param("1" * 10_000, id="long text"),
    ],
)
def test_what_is_no_id_is_refused_in_a_short_sentence(text: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_task_id(text)  # type: ignore[arg-type]
    assert "task id" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_ids_pass_over_a_number_that_somebody_was_seen_with() -> None:
    generator = TaskIdGenerator(0)
    now = EPOCH_MS + 1_000_000
    seen = TaskIdGenerator(0).next(now + 3_600_000)
    generator.pass_over(seen)
    assert generator.next(now) > seen
    before = generator.next(now)
    generator.pass_over(1)
    assert generator.next(now) == before + 1


def test_no_id_of_a_moment_is_above_the_highest_of_that_moment() -> None:
    now = EPOCH_MS + 1_000_000
    assert TaskIdGenerator(1023).next(now) <= highest_id_at(now) < TaskIdGenerator(0).next(now + 1)
