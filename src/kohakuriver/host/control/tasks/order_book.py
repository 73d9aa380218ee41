"""The orders that no runner has answered yet, found by number, by node and by task.

Rules: an order is never changed, only put in and taken out; both through here, so that the three ways to find
it agree. Numbers only grow, so each node's orders stand in the order in which they are to be delivered.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from kohakuriver.host.store.records import OrderRow
from kohakuriver.models.enums import OrderKind
from kohakuriver.models.ids import TaskId

_Key = TypeVar("_Key", str, TaskId)


class OrderBook:
    """Open orders in memory. Costs what is asked for, however many there are of other nodes and tasks."""

    def __init__(self, orders: Iterable[OrderRow] = ()) -> None:
        """`orders` come in the order of their numbers."""
        self._by_id: dict[int, OrderRow] = {}
        self._by_node: dict[str, dict[int, OrderRow]] = {}
        self._by_task: dict[TaskId, dict[int, OrderRow]] = {}
        self._kills: dict[str, dict[int, OrderRow]] = {}
        for order in orders:
            self.put(order)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[OrderRow]:
        return iter(self._by_id.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrderBook) and self._by_id == other._by_id

    __hash__ = None  # type: ignore[assignment]

    def get(self, order_id: int) -> OrderRow | None:
        return self._by_id.get(order_id)

    def put(self, order: OrderRow) -> None:
        """Take in an order with a number above all others."""
        self._by_id[order.id] = order
        self._by_node.setdefault(order.node, {})[order.id] = order
        self._by_task.setdefault(order.task_id, {})[order.id] = order
        if order.kind is OrderKind.KILL:
            self._kills.setdefault(order.node, {})[order.id] = order

    def take_out(self, order_id: int) -> bool:
        """Strike an order off; tells whether it was there."""
        order = self._by_id.pop(order_id, None)
        if order is None:
            return False
        _take_out_of(self._by_node, order.node, order_id)
        _take_out_of(self._by_task, order.task_id, order_id)
        if order.kind is OrderKind.KILL:
            _take_out_of(self._kills, order.node, order_id)
        return True

    def nodes(self) -> set[str]:
        """Names of the nodes that have open orders."""
        return set(self._by_node)

    def of_node(self, node: str, limit: int | None = None) -> list[OrderRow]:
        """The oldest open orders of a node, oldest first."""
        return list(islice(self._by_node.get(node, {}).values(), limit))

    def kills_of_node(self, node: str, limit: int) -> list[OrderRow]:
        """Those of them that are kills."""
        return list(islice(self._kills.get(node, {}).values(), limit))

    def of_task(self, task_id: TaskId) -> list[OrderRow]:
        return list(self._by_task.get(task_id, {}).values())


def _take_out_of(index: dict[_Key, dict[int, OrderRow]], key: _Key, order_id: int) -> None:
    orders = index[key]
    del orders[order_id]
    if not orders:
        del index[key]
