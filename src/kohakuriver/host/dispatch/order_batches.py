"""Orders as bodies of requests: kills first and by themselves, then all others in the order of their numbers.

Rules: a request is of about `BATCH_BYTES` at most, and less after one that failed, so that large orders never
keep others from a node. Kills carry no number: a node tells by the highest number that it took in which of
its orders a heartbeat knows of, and a kill that comes before older orders must not count for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from kohakuriver.models.errors import Unavailable
from kohakuriver.wire.messages import BATCH_BYTES, MAX_ORDER_BYTES, Order, OrderAnswer, encode

MOST_ORDERS = 200
_LEAST_BYTES = 16 << 10


class OrderSource(Protocol):
    """What has the open orders of nodes; the control room."""

    def kills_for(self, hostname: str, limit: int) -> list[Order]: ...

    def orders_for(self, hostname: str, limit: int) -> list[Order]: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """`orders` as the host has them, `body` as they are sent."""

    orders: Sequence[Order]
    body: bytes

    @property
    def never_arrives(self) -> bool:
        """Whether it is one order that no runner takes."""
        return len(self.orders) == 1 and len(self.body) > MAX_ORDER_BYTES

    def numbered(self, answers: Sequence[OrderAnswer]) -> list[OrderAnswer]:
        """The answers, which come in the order of the orders, with the numbers that the host has."""
        if len(answers) != len(self.orders):
            raise Unavailable(f"the runner gave {len(answers)} answers to {len(self.orders)} orders")
        return [
            msgspec.structs.replace(answer, order_id=order.order_id)
            for order, answer in zip(self.orders, answers, strict=True)
        ]

    def refused(self, sentence: str) -> list[OrderAnswer]:
        return [
            OrderAnswer(order_id=order.order_id, accepted=False, detail=sentence) for order in self.orders
        ]


NO_ORDERS = Batch((), b"[]")
"""Asks a runner nothing, but to answer."""


class BatchSize:
    """How much the next request to a node may hold."""

    def __init__(self) -> None:
        self.most_bytes = BATCH_BYTES
        self.most_orders = MOST_ORDERS

    def shrink(self, batch: Batch) -> None:
        """A batch did not arrive, or was refused."""
        self.most_bytes = max(min(self.most_bytes, len(batch.body)) // 2, _LEAST_BYTES)
        self.most_orders = max(min(self.most_orders, len(batch.orders)) // 2, 1)

    def grow(self) -> None:
        self.most_bytes = min(self.most_bytes * 2, BATCH_BYTES)
        self.most_orders = min(self.most_orders * 2, MOST_ORDERS)


def next_batch(source: OrderSource, node: str, size: BatchSize) -> Batch | None:
    """What to send to the node now; None if nothing waits."""
    if kills := source.kills_for(node, size.most_orders):
        return Batch(kills, encode([msgspec.structs.replace(kill, order_id=0) for kill in kills]))
    orders: list[Order] = []
    texts: list[bytes] = []
    total = 0
    for order in source.orders_for(node, size.most_orders):
        text = encode(order)
        total += len(text) + 1
        if orders and total > size.most_bytes:
            break
        orders.append(order)
        texts.append(text)
    return Batch(orders, b"[" + b",".join(texts) + b"]") if orders else None
