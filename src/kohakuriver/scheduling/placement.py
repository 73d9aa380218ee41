"""Which waiting task starts on which node: the policy in one function.

- Order is by priority, then submission. A task that finds no room may be passed by smaller ones behind it,
  but never by one of the same demand.
- A target names the only node. Otherwise nodes without GPUs come first, then the node with the largest free
  fraction (of cores or memory, whichever is scarcer), then the one with the fewest tasks, then by name; a
  node that the demand avoids comes last.
- A task that has waited longer than `STARVATION_SECONDS` reserves its best node: what is free there and comes
  free counts as given to it, so that tasks behind it take only what it does not need.
- What a VPS holds does not come free by itself, so no node is reserved for what does not fit beside its
  VPSs. A reservation that has not come true in `RESERVATION_SECONDS` is let go for `REST_SECONDS`.
- Nothing is ever overcommitted, and neither queue nor table is changed: the caller commits and applies.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapify, heappop, heapreplace

from kohakuriver.models.ids import TaskId
from kohakuriver.models.resources import Demand, Usage, fits
from kohakuriver.scheduling.nodes import NodeTable, NodeView, OrderKey, order_key
from kohakuriver.scheduling.queue import QueuedTask, Rank, Shape, TaskQueue

STARVATION_SECONDS = 600.0

RESERVATION_SECONDS = 6 * 3600.0
REST_SECONDS = 3600.0
"""What runs may never end. Others get the room for a while, and other waiting tasks their turn to reserve."""

_MAX_FREE_RESERVATIONS = 4
"""Reservations of tasks without a target. One would do for each to have its turn; many empty many nodes."""

_FEW_NODES = 32
"""Up to so many nodes that gained room are looked at one by one, instead of in the order of all nodes."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A task and the node that it is to start on."""

    task_id: TaskId
    node: str


@dataclass(frozen=True, slots=True)
class Placements:
    """Result of one pass: what starts now, in the order in which room was given, and what is reserved.

    `again_at`: when the next reservation is let go or may be made anew, should nothing else change.
    """

    placed: tuple[Placement, ...]
    reserved: tuple[Placement, ...]
    again_at: datetime | None = None


def place(
    queue: TaskQueue, nodes: NodeTable, now: datetime, starvation_seconds: float = STARVATION_SECONDS
) -> Placements:
    """Give room to waiting tasks; costs O(shapes + placements · log), whatever the length of the queue.

    The caller removes what it commits from the queue and takes it from the table before the next pass; what
    it does not commit is offered again.
    """
    starving_before = now - timedelta(seconds=starvation_seconds)
    walk, rooms = _Walk(queue), _Rooms(nodes, now)
    placed: list[Placement] = []
    reserved: list[Placement] = []
    while (shape := walk.shape()) is not None:
        task = walk.task()
        node = rooms.find(shape)
        if node is not None:
            rooms.take(node, shape.demand)
            placed.append(Placement(task.task_id, node))
            walk.next_task()
            continue
        if task.queued_at < starving_before and (node := rooms.reserve(shape)) is not None:
            reserved.append(Placement(task.task_id, node))
        walk.next_shape()
    walk.close()
    rooms.close()
    return Placements(tuple(placed), tuple(reserved), rooms.again_at)


class _Walk:
    """Goes through the heads of all shapes in the order of the queue, and leaves the queue as it was."""

    def __init__(self, queue: TaskQueue) -> None:
        heads = ((shape.head(), shape) for shape in queue.shapes())
        self._heads: list[tuple[Rank, Shape]] = [(head.rank, shape) for head, shape in heads if head]
        heapify(self._heads)
        self._aside: list[tuple[Rank, Shape]] = []

    def shape(self) -> Shape | None:
        return self._heads[0][1] if self._heads else None

    def task(self) -> QueuedTask:
        rank, shape = self._heads[0]
        return shape.tasks[rank[1]]

    def next_task(self) -> None:
        """Leave the current task, which was placed; the next of its shape takes its place in the order."""
        shape = self._heads[0][1]
        self._aside.append((shape.set_aside(), shape))
        head = shape.head()
        if head is None:
            heappop(self._heads)
        else:
            heapreplace(self._heads, (head.rank, shape))

    def next_shape(self) -> None:
        """Leave the whole shape, which found no room."""
        heappop(self._heads)

    def close(self) -> None:
        for rank, shape in self._aside:
            shape.put_back(rank)


class _Rooms:
    """The table with what this pass gives out on top of it.

    Room only shrinks during a pass, so a node that was too full for a shape stays so: `_cursor` remembers,
    per shape, the place in the order up to which no node had room, and `_failed` holds the smallest demands
    that found none anywhere.
    """

    def __init__(self, table: NodeTable, now: datetime) -> None:
        self._table = table
        self._now = now
        self.again_at: datetime | None = None
        self._version = table.version
        self._order = table.order()
        self._usage: dict[str, Usage] = {}
        self._cursor: dict[Demand, OrderKey] = {}
        self._failed: list[Demand] = []
        self._free_choices = _MAX_FREE_RESERVATIONS

    def find(self, shape: Shape) -> str | None:
        """Return the best node for one more task of the shape; None is remembered for later passes."""
        name = self._search(shape)
        if name is None:
            shape.checked_table, shape.checked_version = self._table, self._version
        else:
            shape.reserved_node = shape.reserving_since = shape.rests_until = None
        return name

    def take(self, name: str, demand: Demand) -> None:
        view = self._view(name)
        usage = self._usage.get(name)
        if usage is None:
            usage = self._usage[name] = view.usage.copy()
        del self._order[bisect_left(self._order, order_key(view, usage))]
        usage.take(demand)
        insort(self._order, order_key(view, usage))

    def reserve(self, shape: Shape) -> str | None:
        """Set a node's room aside for the shape's head and return its name; None if no open node is large
        enough. A node that was chosen in an earlier pass is kept while it can be, so that it does empty."""
        chooses = shape.demand.target is None
        if (chooses and not self._free_choices) or self._rests(shape):
            return None
        name = shape.reserved_node
        if name is None or not self._reservable(name, shape.demand):
            name = shape.reserved_node = self._choose_reservation(shape)
        if name is not None:
            self._free_choices -= chooses
            shape.reserving_since = shape.reserving_since or self._now
            self._look_again(shape.reserving_since + timedelta(seconds=RESERVATION_SECONDS))
            self.take(name, shape.demand)
        return name

    def _rests(self, shape: Shape) -> bool:
        """Whether the shape reserves nothing for now; lets go of what it has reserved for too long."""
        since = shape.reserving_since
        if since is not None and self._now >= since + timedelta(seconds=RESERVATION_SECONDS):
            shape.reserved_node = shape.reserving_since = None
            shape.rests_until = self._now + timedelta(seconds=REST_SECONDS)
        if shape.rests_until is None or self._now >= shape.rests_until:
            return False
        self._look_again(shape.rests_until)
        return True

    def _look_again(self, at: datetime) -> None:
        self.again_at = at if self.again_at is None else min(self.again_at, at)

    def close(self) -> None:
        """Have the nodes that this pass changed looked at again: what it gave out may not be committed."""
        self._table.touch(self._usage)

    def _search(self, shape: Shape) -> str | None:
        demand = shape.demand
        name: str | None
        if demand.target is not None:
            name = demand.target.hostname
            return name if self._has_room(name, demand) else None
        if any(_asks_no_more(failed, demand) for failed in self._failed):
            return None
        name = self._search_all(shape)
        if name is None and not demand.gpus:
            self._failed = [failed for failed in self._failed if not _asks_no_more(demand, failed)]
            self._failed.append(demand)
        return name

    def _search_all(self, shape: Shape) -> str | None:
        demand = shape.demand
        if shape.checked_table is self._table:
            gained = self._table.gained_since(shape.checked_version, _FEW_NODES)
            if gained is not None:
                roomy = [name for name in gained if self._has_room(name, demand)]
                roomy = [name for name in roomy if name != demand.avoid] or roomy
                return min(roomy, key=self._key) if roomy else None
        return self._search_in_order(demand)

    def _search_in_order(self, demand: Demand) -> str | None:
        cursor = self._cursor.get(demand)
        start = 0 if cursor is None else bisect_left(self._order, cursor)
        for index in range(start, len(self._order)):
            key = self._order[index]
            if key[3] != demand.avoid and self._has_room(key[3], demand):
                self._cursor[demand] = key
                return key[3]
        return demand.avoid if demand.avoid and self._has_room(demand.avoid, demand) else None

    def _has_room(self, name: str, demand: Demand) -> bool:
        view = self._table.peek(name)
        if view is None or view.closed_reason:
            return False
        # In a busy cluster most nodes are full and few lack an ability, so room is looked at first.
        used = self._usage.get(name) or view.usage
        return fits(demand, view.capacity, used) and demand.needs <= view.offers

    def _reservable(self, name: str, demand: Demand) -> bool:
        view = self._table.peek(name)
        return view is not None and view.accepts_work and view.could_empty_for(demand)

    def _choose_reservation(self, shape: Shape) -> str | None:
        """The node that is nearest to having the room. That none can is remembered until the nodes change."""
        demand = shape.demand
        if shape.too_large_for == (self._table, self._table.nodes_version):
            return None
        names = [key[3] for key in self._order] if demand.target is None else [demand.target.hostname]
        able = [name for name in names if self._reservable(name, demand)]
        if able:
            return max(able, key=lambda name: self._progress(name, demand))
        shape.too_large_for = self._table, self._table.nodes_version
        return None

    def _progress(self, name: str, demand: Demand) -> tuple[float, int, int]:
        """How much of the demand is free already, then the size of the node."""
        view = self._view(name)
        usage = self._usage.get(name) or view.usage
        cores = (view.capacity.cores - usage.cores) / demand.cores if demand.cores else 1.0
        memory = (
            (view.capacity.memory_bytes - usage.memory_bytes) / demand.memory_bytes
            if demand.memory_bytes
            else 1.0
        )
        return min(cores, memory, 1.0), view.capacity.cores, view.capacity.memory_bytes

    def _key(self, name: str) -> OrderKey:
        view = self._view(name)
        return order_key(view, self._usage.get(name) or view.usage)

    def _view(self, name: str) -> NodeView:
        view = self._table.peek(name)
        if view is None:
            raise KeyError(name)
        return view


def _asks_no_more(one: Demand, other: Demand) -> bool:
    """Whether `one` fits wherever `other` does; both without target, `one` without GPUs."""
    return one.cores <= other.cores and one.memory_bytes <= other.memory_bytes and one.needs <= other.needs
