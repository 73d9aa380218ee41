"""The nodes as the scheduler sees them: capacity, what is given out, and whether new work is taken.

`NodeTable` is the ledger in memory. It keeps the nodes in the order of preference and remembers which of them
gained room, so that a pass looks at what changed and not at everything. Its owner keeps it in step with the
store: `take` when a placement is committed, `give_back` when a task stops holding its share.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from kohakuriver.models.abilities import LACKS, Ability
from kohakuriver.models.records import changed
from kohakuriver.models.resources import Demand, NodeCapacity, Usage, fits, shortage

OrderKey = tuple[bool, float, int, str]
"""Smaller is preferred: nodes without GPUs, then the most free, then the fewest tasks, then by name."""


class NodeView(msgspec.Struct, frozen=True):
    """One node at one moment.

    `closed_reason` says in a few words why the node takes no new work now ("is offline", "is draining");
    empty if it does. `standing` is the part of `usage` that has no end of its own: what VPSs hold.
    `offers`: the abilities that it has; `lacks`: why it has not got others, where its runner said so.
    """

    name: str
    capacity: NodeCapacity
    usage: Usage = msgspec.field(default_factory=Usage)
    closed_reason: str = ""
    offers: frozenset[Ability] = frozenset()
    standing: Usage = msgspec.field(default_factory=Usage)
    lacks: Mapping[Ability, str] = msgspec.field(default_factory=dict)

    @property
    def accepts_work(self) -> bool:
        return not self.closed_reason

    @property
    def gpu_count(self) -> int:
        return len(self.capacity.gpus)

    @property
    def order_key(self) -> OrderKey:
        return order_key(self, self.usage)

    def could_hold(self, demand: Demand) -> bool:
        """Tell whether the demand fits when nothing else runs there, and the node lacks no ability."""
        return demand.needs <= self.offers and fits(demand, self.capacity, Usage())

    def could_empty_for(self, demand: Demand) -> bool:
        """Tell whether the demand fits once all that has an end has come to it."""
        return self.could_hold(demand) and fits(demand, self.capacity, self.standing)

    def obstacle(self, demand: Demand) -> str | None:
        """Say why the demand cannot be placed here now ("is offline", "2 cores wanted, …"); None: it can."""
        if self.closed_reason:
            return self.closed_reason
        return self.lacking(demand) or shortage(demand, self.capacity, self.usage)

    def lacking(self, demand: Demand) -> str | None:
        """Say which of the abilities that the demand needs it lacks; None: it has them all."""
        if demand.needs <= self.offers:
            return None
        missing = sorted(demand.needs - self.offers)
        return ", and ".join(self.lacks.get(ability) or LACKS[ability] for ability in missing)


def order_key(view: NodeView, usage: Usage) -> OrderKey:
    """Place of a node in the order of preference, with the given usage in place of the view's own."""
    capacity = view.capacity
    used = max(
        usage.cores / capacity.cores if capacity.cores else 1.0,
        usage.memory_bytes / capacity.memory_bytes if capacity.memory_bytes else 1.0,
    )
    return bool(capacity.gpus), used, usage.tasks, view.name


class NodeTable:
    """All nodes by name. Iteration gives each as a `NodeView` of this moment, in the order of preference."""

    def __init__(self, views: Iterable[NodeView] = ()) -> None:
        self._views: dict[str, NodeView] = {}
        self._keys: dict[str, OrderKey] = {}
        self._order: list[OrderKey] = []
        self._version = 0
        self._nodes_version = 0
        self._gained_at: dict[str, int] = {}
        """Version at which a node last gained room, in ascending order of versions."""
        for view in views:
            self.put(view)

    def __len__(self) -> int:
        return len(self._views)

    def __contains__(self, name: str) -> bool:
        return name in self._views

    def __iter__(self) -> Iterator[NodeView]:
        return iter([self.view(key[3]) for key in self._order])

    def names(self) -> list[str]:
        """Names of all nodes, sorted."""
        return sorted(self._views)

    @property
    def version(self) -> int:
        """Grows whenever a node gains room or opens."""
        return self._version

    @property
    def nodes_version(self) -> int:
        """Grows whenever a node is added, replaced, opened or closed, or a VPS takes or leaves room."""
        return self._nodes_version

    def view(self, name: str) -> NodeView:
        """Return the node with a copy of its usage; raises KeyError for an unknown name."""
        view = self._views[name]
        return changed(view, usage=view.usage.copy(), standing=view.standing.copy())

    def put(self, view: NodeView) -> None:
        """Add a node or replace all that is known of it, its usage included (which is copied)."""
        self._views[view.name] = changed(view, usage=view.usage.copy(), standing=view.standing.copy())
        self._sort_in(view.name)
        self._nodes_version += 1
        self.touch([view.name])

    def remove(self, name: str) -> None:
        """Forget a node; an unknown name is not an error."""
        self._take_out(name)
        self._views.pop(name, None)
        self._gained_at.pop(name, None)

    def set_status(self, name: str, closed_reason: str) -> None:
        """Open or close a node for new work; what is given out stays as it is."""
        view = self._views[name]
        if view.closed_reason != closed_reason:
            self._views[name] = changed(view, closed_reason=closed_reason)
            self._nodes_version += 1
            self.touch([name])

    def take(self, name: str, demand: Demand, *, lasting: bool = False) -> None:
        """Give out a share; the caller has asked `view(name).obstacle(demand)` first.

        `lasting`: what takes it has no end of its own.
        """
        self._shift(name, demand, 1)
        if lasting:
            self._views[name].standing.take(demand)
            self._nodes_version += 1

    def give_back(self, name: str, demand: Demand, *, lasting: bool = False) -> None:
        """Take back a share that was taken; a node that is gone is not an error."""
        if name not in self._views:
            return
        self._shift(name, demand, -1)
        if lasting:
            self._views[name].standing.give_back(demand)
            self._nodes_version += 1
        self.touch([name])

    def touch(self, names: Iterable[str]) -> None:
        """Have the next pass look at these nodes again for tasks that found no room so far."""
        for name in names:
            self._version += 1
            self._gained_at.pop(name, None)
            self._gained_at[name] = self._version

    def gained_since(self, version: int, limit: int) -> list[str] | None:
        """Names of nodes that gained room after `version`, or None if they are more than `limit`."""
        names: list[str] = []
        for name in reversed(self._gained_at):
            if self._gained_at[name] <= version:
                break
            if len(names) == limit:
                return None
            names.append(name)
        return names

    def peek(self, name: str) -> NodeView | None:
        """The node with its live usage, to be read at once and not kept."""
        return self._views.get(name)

    def order(self) -> list[OrderKey]:
        """A copy of all order keys, most preferred first."""
        return self._order.copy()

    def _shift(self, name: str, demand: Demand, sign: int) -> None:
        usage = self._views[name].usage
        if sign > 0:
            usage.take(demand)
        else:
            usage.give_back(demand)
        self._sort_in(name)

    def _sort_in(self, name: str) -> None:
        """Put a node where it belongs in the order now."""
        self._take_out(name)
        key = self._keys[name] = self._views[name].order_key
        insort(self._order, key)

    def _take_out(self, name: str) -> None:
        key = self._keys.pop(name, None)
        if key is not None:
            del self._order[bisect_left(self._order, key)]
