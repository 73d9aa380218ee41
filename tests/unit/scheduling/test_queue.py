import pickle
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.models.ids import TaskId
from kohakuriver.models.resources import Demand
from kohakuriver.scheduling.nodes import NodeTable
from kohakuriver.scheduling.placement import place
from kohakuriver.scheduling.queue import TaskQueue
from support.scheduling.values import NOW, node, pairs, queue_of, queued


def test_the_queue_is_in_order_of_priority_then_submission() -> None:
    queue = queue_of(queued(3), queued(1, Demand(cores=2)), queued(2, priority=1), queued(4, priority=-1))
    assert [task.task_id for task in queue] == [2, 1, 3, 4]
    assert len(queue) == 4


def test_a_task_that_was_taken_out_is_gone_and_taking_it_out_again_is_free() -> None:
    queue = queue_of(queued(1), queued(2))
    queue.remove(TaskId(1))
    queue.remove(TaskId(1))
    assert TaskId(1) not in queue
    assert queue.get(TaskId(1)) is None
    assert [task.task_id for task in queue] == [2]


def test_a_task_that_is_added_twice_waits_once() -> None:
    queue, table = queue_of(queued(1), queued(1)), NodeTable([node("n1", cores=4)])
    assert pairs(place(queue, table, NOW)) == [(1, "n1")]
    queue.remove(TaskId(1))
    queue.add(queued(2))
    queue.add(queued(1))
    assert pairs(place(queue, table, NOW)) == [(1, "n1"), (2, "n1")]


def test_a_task_that_is_added_again_has_its_new_demand_and_priority() -> None:
    queue = queue_of(queued(1), queued(2), queued(1, Demand(cores=2), priority=-1))
    assert pairs(place(queue, NodeTable([node("n1", cores=3)]), NOW)) == [(2, "n1"), (1, "n1")]


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 12), st.integers(-1, 1), st.integers(0, 2)), max_size=200
    )
)
def test_a_pass_over_a_large_node_empties_the_queue_in_order(
    steps: list[tuple[bool, int, int, int]],
) -> None:
    queue, expected = TaskQueue(), {}
    for adds, number, priority, cores in steps:
        if adds:
            expected[number] = queued(number, Demand(cores=cores), priority=priority)
            queue.add(expected[number])
        else:
            expected.pop(number, None)
            queue.remove(TaskId(number))
    ranks = [task.rank for task in queue]
    assert sorted(task.rank for task in expected.values()) == ranks
    assert all(before < after for before, after in pairwise(ranks))
    placed = place(queue, NodeTable([node("n1", cores=100)]), NOW).placed
    assert [placement.task_id for placement in placed] == [rank[1] for rank in ranks]


def test_tasks_that_are_killed_while_they_wait_do_not_pile_up() -> None:
    queue = queue_of(queued(10**6))
    for number in range(1, 5_000):
        queue.add(queued(number))
        queue.remove(TaskId(number))
    (shape,) = queue.shapes()
    assert len(pickle.dumps(shape)) < 4 * len(pickle.dumps(queue_of(*map(queued, range(1, 65)))))
