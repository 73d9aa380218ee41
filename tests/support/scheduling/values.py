"""Short ways to make the scheduler's values in tests."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import cast

from kohakuriver.models.abilities import Ability
from kohakuriver.models.ids import TaskId
from kohakuriver.models.resources import Demand, NodeCapacity, NumaNode, Usage
from kohakuriver.models.spec.targets import Target
from kohakuriver.scheduling.nodes import NodeTable, NodeView
from kohakuriver.scheduling.placement import Placements
from kohakuriver.scheduling.queue import QueuedTask, TaskQueue

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GIB = 1 << 30
SHARED = frozenset({Ability.SHARED_STORAGE})


class _AbilityAddedLater(StrEnum):
    FLYING = "flying"


FLYING = cast(Ability, _AbilityAddedLater.FLYING)
"""One that no line of the source names: whatever holds for it holds for the next that is added."""
NO_WINGS = MappingProxyType({FLYING: "has no wings"})


def node(
    name: str,
    cores: int = 2,
    gpus: int = 0,
    closed_reason: str = "",
    *,
    offers: frozenset[Ability] = SHARED,
    lacks: Mapping[Ability, str] = NO_WINGS,
) -> NodeView:
    """A node with two NUMA nodes (one if it has a single core) and 2 GiB for each core."""
    half = max(cores // 2, 1)
    numa = tuple(
        NumaNode(index, tuple(range(index * half, index * half + half)), half * 2 * GIB)
        for index in range(2 if cores > 1 else 1)
    )
    capacity = NodeCapacity(cores, cores * 2 * GIB, numa, tuple(range(gpus)))
    return NodeView(name, capacity, Usage(), closed_reason, offers, lacks=lacks)


def queued(
    task_id: int, demand: Demand | None = None, *, priority: int = 0, waited_seconds: float = 0
) -> QueuedTask:
    return QueuedTask(TaskId(task_id), demand or Demand(), NOW - timedelta(seconds=waited_seconds), priority)


def queue_of(*tasks: QueuedTask) -> TaskQueue:
    queue = TaskQueue()
    for task in tasks:
        queue.add(task)
    return queue


def on(hostname: str, numa: int | None = None, gpus: tuple[int, ...] = (), cores: int = 1) -> Demand:
    return Demand(cores=cores, target=Target(hostname, numa, gpus), gpus=gpus)


def pairs(placements: Placements) -> list[tuple[int, str]]:
    return [(int(placement.task_id), placement.node) for placement in placements.placed]


def commit(placements: Placements, queue: TaskQueue, table: NodeTable) -> None:
    """What the caller of `place` does with its result."""
    for placement in placements.placed:
        task = queue.get(placement.task_id)
        assert task is not None
        assert table.view(placement.node).obstacle(task.demand) is None
        queue.remove(placement.task_id)
        table.take(placement.node, task.demand)
