import pytest

from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.resources import Demand, NodeCapacity, Usage, fits
from kohakuriver.scheduling import placement
from kohakuriver.scheduling.nodes import NodeTable
from kohakuriver.scheduling.placement import STARVATION_SECONDS, place
from support.scheduling.values import FLYING, GIB, NOW, SHARED, commit, node, on, pairs, queue_of, queued

LONG = STARVATION_SECONDS + 1


def test_fifty_one_core_tasks_run_two_at_once_and_in_order_on_two_cores() -> None:
    queue, table = queue_of(*(queued(number) for number in range(1, 51))), NodeTable([node("n1", cores=2)])
    started: list[int] = []
    running: list[int] = []
    while len(started) < 50:
        result = place(queue, table, NOW)
        commit(result, queue, table)
        running += [number for number, _ in pairs(result)]
        started += [number for number, _ in pairs(result)]
        assert len(running) <= 2
        running.pop(0)
        table.give_back("n1", Demand())
    assert started == list(range(1, 51))


def test_higher_priority_goes_first_and_equals_go_by_submission() -> None:
    queue = queue_of(queued(1), queued(2, priority=5), queued(3, priority=5), queued(4, priority=-1))
    assert pairs(place(queue, NodeTable([node("n1", cores=3)]), NOW)) == [(2, "n1"), (3, "n1"), (1, "n1")]


def test_a_task_that_is_put_back_comes_before_later_ones() -> None:
    queue, table = queue_of(queued(5), queued(6)), NodeTable([node("n1", cores=1)])
    queue.add(queued(2))
    assert pairs(place(queue, table, NOW)) == [(2, "n1")]


def test_tasks_spread_to_the_node_with_the_most_free() -> None:
    table = NodeTable([node("small", cores=2), node("large", cores=8)])
    queue = queue_of(*(queued(number) for number in range(1, 6)))
    assert pairs(place(queue, table, NOW)) == [
        (1, "large"),
        (2, "small"),
        (3, "large"),
        (4, "large"),
        (5, "large"),
    ]


def test_the_scarcer_of_cores_and_memory_tells_what_is_free() -> None:
    table = NodeTable([node("a", cores=4), node("b", cores=4)])
    table.take("a", Demand(cores=0, memory_bytes=6 * GIB))
    table.take("b", Demand(cores=2))
    assert pairs(place(queue_of(queued(1)), table, NOW)) == [(1, "b")]


def test_tasks_without_cores_spread_by_number() -> None:
    table = NodeTable([node("a"), node("b")])
    queue = queue_of(*(queued(number, Demand(cores=0)) for number in range(1, 5)))
    assert pairs(place(queue, table, NOW)) == [(1, "a"), (2, "b"), (3, "a"), (4, "b")]


def test_nodes_with_gpus_are_the_last_choice_of_tasks_without() -> None:
    table = NodeTable([node("a-gpu", cores=8, gpus=2), node("b", cores=1)])
    assert pairs(place(queue_of(queued(1), queued(2)), table, NOW)) == [(1, "b"), (2, "a-gpu")]


def test_a_target_is_the_only_node() -> None:
    table = NodeTable([node("n1", cores=1), node("n2", cores=8)])
    queue = queue_of(queued(1, on("n1")), queued(2, on("n1")), queued(3, on("gone")))
    assert pairs(place(queue, table, NOW)) == [(1, "n1")]


def test_a_gpu_is_given_to_one_task_at_a_time() -> None:
    table = NodeTable([node("n1", cores=8, gpus=3)])
    queue = queue_of(
        queued(1, on("n1", gpus=(0, 1))), queued(2, on("n1", gpus=(1, 2))), queued(3, on("n1", gpus=(2,)))
    )
    assert pairs(place(queue, table, NOW)) == [(1, "n1"), (3, "n1")]


def test_a_numa_node_is_not_overcommitted_while_the_other_has_room() -> None:
    table = NodeTable([node("n1", cores=4)])
    queue = queue_of(queued(1, on("n1", 0, cores=2)), queued(2, on("n1", 0)), queued(3, on("n1", 1)))
    assert pairs(place(queue, table, NOW)) == [(1, "n1"), (3, "n1")]


@pytest.mark.parametrize("view", [node("n1", closed_reason="is offline"), node("n1", offers=frozenset())])
def test_a_node_that_takes_no_work_or_lacks_shared_storage_gets_none(view: object) -> None:
    table = NodeTable([view])  # type: ignore[list-item]
    queue = queue_of(queued(1, Demand(needs=SHARED)))
    assert pairs(place(queue, table, NOW)) == []
    table.put(node("n1"))
    assert pairs(place(queue, table, NOW)) == [(1, "n1")]


def test_a_task_gets_the_node_that_has_all_its_abilities() -> None:
    table = NodeTable([node("large", cores=8), node("small", offers=SHARED | {FLYING})])
    table.put(node("bare", cores=16, offers=frozenset({FLYING})))
    queue = queue_of(queued(1, Demand(needs=SHARED | {FLYING})), queued(2, Demand(needs=SHARED)), queued(3))
    assert pairs(place(queue, table, NOW)) == [(1, "small"), (2, "large"), (3, "bare")]


def test_a_demand_that_found_no_room_hides_none_of_another_ability() -> None:
    table = NodeTable([node("n1", cores=4)])
    queue = queue_of(
        queued(1, Demand(needs=frozenset({FLYING}))),
        queued(2, Demand(cores=2, needs=SHARED | {FLYING})),
        queued(3, Demand(cores=2, needs=SHARED)),
        queued(4, Demand(cores=2)),
    )
    assert pairs(place(queue, table, NOW)) == [(3, "n1"), (4, "n1")]


def test_a_node_that_lacks_an_ability_is_not_reserved_for_what_needs_it() -> None:
    table = NodeTable([node("n1", cores=4)])
    queue = queue_of(queued(1, Demand(needs=frozenset({FLYING})), waited_seconds=LONG), queued(2))
    result = place(queue, table, NOW)
    assert result.reserved == ()
    assert pairs(result) == [(2, "n1")]


def test_smaller_tasks_pass_one_that_finds_no_room_but_equal_ones_do_not() -> None:
    table = NodeTable([node("n1", cores=4)])
    table.take("n1", Demand(cores=2))
    queue = queue_of(queued(1, Demand(cores=3)), queued(2, Demand(cores=3)), queued(3), queued(4))
    assert pairs(place(queue, table, NOW)) == [(3, "n1"), (4, "n1")]
    table.give_back("n1", Demand(cores=2))
    assert pairs(place(queue, table, NOW)) == [(1, "n1"), (3, "n1")]


def test_a_task_that_waited_long_reserves_what_it_needs() -> None:
    table = NodeTable([node("n1", cores=4)])
    table.take("n1", Demand(cores=2))
    queue = queue_of(queued(1, Demand(cores=4), waited_seconds=LONG), queued(2))
    result = place(queue, table, NOW)
    assert pairs(result) == []
    assert [(item.task_id, item.node) for item in result.reserved] == [(1, "n1")]
    table.give_back("n1", Demand(cores=2))
    assert pairs(place(queue, table, NOW)) == [(1, "n1")]


def test_a_reservation_leaves_to_others_what_it_does_not_need() -> None:
    table = NodeTable([node("n1", cores=4, gpus=1)])
    table.take("n1", on("n1", gpus=(0,)))
    queue = queue_of(queued(1, on("n1", gpus=(0,)), waited_seconds=LONG), queued(2), queued(3), queued(4))
    result = place(queue, table, NOW)
    assert pairs(result) == [(2, "n1"), (3, "n1")]
    assert len(result.reserved) == 1


def test_tasks_before_the_waiting_one_still_take_its_room() -> None:
    table = NodeTable([node("n1", cores=4)])
    table.take("n1", Demand(cores=2))
    queue = queue_of(queued(1, Demand(cores=4), waited_seconds=LONG), queued(2, priority=1))
    assert pairs(place(queue, table, NOW)) == [(2, "n1")]


def test_the_node_that_is_nearest_to_having_room_is_reserved_and_kept() -> None:
    table = NodeTable([node("a", cores=4), node("b", cores=4), node("tiny", cores=1)])
    table.take("a", Demand(cores=3))
    table.take("b", Demand(cores=1))
    queue = queue_of(queued(1, Demand(cores=4), waited_seconds=LONG))
    assert [item.node for item in place(queue, table, NOW).reserved] == ["b"]
    table.give_back("a", Demand(cores=3))
    table.take("a", Demand(cores=1))
    assert [item.node for item in place(queue, table, NOW).reserved] == ["b"]
    table.set_status("b", "is draining")
    assert [item.node for item in place(queue, table, NOW).reserved] == ["a"]


def test_a_task_that_fits_nowhere_reserves_nothing_until_a_node_for_it_joins() -> None:
    table = NodeTable([node("n1", cores=4)])
    queue = queue_of(queued(1, Demand(cores=9), waited_seconds=LONG), queued(2, Demand(cores=4)))
    result = place(queue, table, NOW)
    assert (pairs(result), result.reserved) == ([(2, "n1")], ())
    table.put(changed(node("n9", cores=16), closed_reason="is offline"))
    assert place(queue, table, NOW).reserved == ()
    table.set_status("n9", "")
    assert pairs(place(queue, table, NOW)) == [(1, "n9"), (2, "n1")]


def test_many_tasks_that_fit_nowhere_do_not_use_up_the_reservations() -> None:
    table = NodeTable([node("n1", cores=4)])
    table.take("n1", Demand(cores=1))
    too_large = [queued(number, Demand(cores=100 - number), waited_seconds=LONG) for number in range(1, 40)]
    queue = queue_of(*too_large, queued(50, Demand(cores=4), waited_seconds=LONG), queued(51))
    assert [item.task_id for item in place(queue, table, NOW).reserved] == [50]


def test_when_the_reserving_task_is_killed_those_behind_it_get_the_room() -> None:
    table = NodeTable([node("n1", cores=4)])
    table.take("n1", Demand(cores=2))
    queue = queue_of(queued(1, Demand(cores=4), waited_seconds=LONG), queued(2))
    assert pairs(place(queue, table, NOW)) == []
    queue.remove(TaskId(1))
    assert pairs(place(queue, table, NOW)) == [(2, "n1")]


def test_what_was_not_committed_is_offered_again() -> None:
    queue, table = queue_of(*(queued(number) for number in range(1, 9))), NodeTable([node("a"), node("b")])
    before = [view.usage for view in table]
    first = place(queue, table, NOW)
    assert [view.usage for view in table] == before
    assert [task.task_id for task in queue] == list(range(1, 9))
    assert place(queue, table, NOW) == first


def test_room_that_comes_free_is_found_by_a_task_that_found_none() -> None:
    queue, table = queue_of(queued(1, Demand(cores=2))), NodeTable([node("a"), node("b")])
    table.take("a", Demand())
    table.take("b", Demand())
    assert pairs(place(queue, table, NOW)) == []
    table.give_back("b", Demand())
    assert pairs(place(queue, table, NOW)) == [(1, "b")]
    table.remove("b")
    assert pairs(place(queue, table, NOW)) == []
    table.put(node("c"))
    assert pairs(place(queue, table, NOW)) == [(1, "c")]


def test_a_node_that_is_avoided_is_the_last_choice() -> None:
    table = NodeTable([node("a", cores=4), node("b", cores=1)])
    queue = queue_of(queued(1, Demand(avoid="a")), queued(2, Demand(avoid="a")))
    assert pairs(place(queue, table, NOW)) == [(1, "b"), (2, "a")]


def test_of_two_nodes_that_gained_room_the_avoided_one_is_left() -> None:
    table = NodeTable([node("a", cores=4), node("b", cores=1)])
    queue = queue_of(queued(1, Demand(avoid="a")))
    table.take("a", Demand(cores=4))
    table.take("b", Demand())
    assert pairs(place(queue, table, NOW)) == []
    table.give_back("a", Demand(cores=4))
    table.give_back("b", Demand())
    assert pairs(place(queue, table, NOW)) == [(1, "b")]


def test_the_next_task_of_the_same_demand_chooses_its_own_node() -> None:
    table = NodeTable([node("a", cores=4), node("b", cores=4)])
    table.take("b", Demand(cores=1))
    table.take("a", Demand(cores=2))
    queue = queue_of(*(queued(number, Demand(cores=4), waited_seconds=LONG) for number in (1, 2)))
    assert [item.node for item in place(queue, table, NOW).reserved] == ["b"]
    table.give_back("b", Demand(cores=1))
    result = place(queue, table, NOW)
    assert pairs(result) == [(1, "b")]
    assert [item.node for item in result.reserved] == ["a"]


def test_nodes_that_are_too_small_are_looked_at_once_in_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def noted(demand: Demand, capacity: NodeCapacity, used: Usage) -> bool:
        looks.append(capacity)
        return fits(demand, capacity, used)

    monkeypatch.setattr(placement, "fits", noted)
    table = NodeTable([node(f"small{number}", cores=2) for number in range(100)])
    table.put(node("x-large", cores=400))
    queue = queue_of(*(queued(number, Demand(cores=4)) for number in range(1, 101)))
    assert len(place(queue, table, NOW).placed) == 100
    assert len(looks) < 400


@pytest.mark.parametrize("shapes", [1, 30])
def test_the_length_of_the_queue_does_not_add_to_the_work(
    shapes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def counted(demand: Demand, capacity: NodeCapacity, used: Usage) -> bool:
        looks[-1] += 1
        return fits(demand, capacity, used)

    monkeypatch.setattr(placement, "fits", counted)
    for length in (1_000, 20_000):
        demands = [Demand(memory_bytes=number * GIB // 64) for number in range(shapes)]
        queue = queue_of(*(queued(number + 1, demands[number % shapes]) for number in range(length)))
        table = NodeTable([node(f"n{number:03}", cores=2) for number in range(100)])
        looks.append(0)
        commit(place(queue, table, NOW), queue, table)
        for number in range(100):
            table.give_back(f"n{number:03}", demands[0])
            commit(place(queue, table, NOW), queue, table)
    assert looks[0] == looks[1]
    assert looks[1] < 300 * shapes + 3_000
