"""Open orders: found by number, node and task, in the order of their numbers, whatever comes and goes."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from kohakuriver.host.control.tasks.order_book import OrderBook
from kohakuriver.host.store.records import OrderRow
from kohakuriver.models.enums import OrderKind
from kohakuriver.models.ids import TaskId

AT = datetime(2026, 1, 1, tzinfo=UTC)
NODES = ["n1", "n2", "n3"]

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.sampled_from(NODES)), max_size=60)


def order(number: int, node: str, task_id: int) -> OrderRow:
    return OrderRow(number, node, TaskId(task_id), 1, OrderKind.EXECUTE, AT)


@given(steps)
def test_every_way_to_find_an_order_gives_the_same(script: list[tuple[bool, int, str]]) -> None:
    book, expected = OrderBook(), {}
    for number, (puts, choice, node) in enumerate(script):
        if puts:
            expected[number] = order(number, node, choice % 4)
            book.put(expected[number])
        else:
            assert book.take_out(choice) is (expected.pop(choice, None) is not None)
    rows = list(expected.values())
    assert list(book) == rows
    assert len(book) == len(rows)
    assert book.nodes() == {row.node for row in rows}
    assert [book.get(number) for number in expected] == rows
    for node in NODES:
        mine = [row for row in rows if row.node == node]
        assert book.of_node(node) == mine
        assert book.of_node(node, 2) == mine[:2]
    for task_id in range(4):
        assert book.of_task(TaskId(task_id)) == [row for row in rows if row.task_id == task_id]
    assert book == OrderBook(rows)
