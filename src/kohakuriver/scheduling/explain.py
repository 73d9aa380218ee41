"""Why a task does not run, as sentences for its owner."""

from collections.abc import Iterable, Iterator

from kohakuriver.models.resources import Demand, Usage, shortage
from kohakuriver.scheduling.nodes import NodeTable, NodeView

FITS = "has room; tasks before it in the queue, or a reservation for one of them, come first"
HELD_BY_VPS = "VPSs hold room there that it needs, and end only when they are stopped"
UNKNOWN_NODE = "is not known"

_NAMED = 5
"""So many nodes are named in a sentence before it says how many more there are."""
_NAMED_NUMBERS = 32
"""So many GPUs or NUMA nodes are."""


def explain(demand: Demand, nodes: NodeTable) -> list[tuple[str, str]]:
    """Return (node, reason) for each node that the task may run on, by name.

    For a task with a target that is the one node, also when it is not known.
    """
    return [(name, _reason(demand, view) if view else UNKNOWN_NODE) for name, view in _named(demand, nodes)]


def _reason(demand: Demand, view: NodeView) -> str:
    obstacle = view.obstacle(demand)
    if obstacle is None:
        return FITS
    if view.accepts_work and view.could_hold(demand) and not view.could_empty_for(demand):
        return f"{obstacle}; {HELD_BY_VPS}"
    return obstacle


def never_fits(demand: Demand, nodes: NodeTable) -> str | None:
    """Say why no node, were it empty and open, could hold the demand; None if one could.

    Cheap when one can; otherwise it costs a look at every node, so ask once per demand and set of nodes.
    """
    lacks: list[str] = []
    for name, view in _named(demand, nodes):
        if view is None:
            lacks.append(f"{name} {UNKNOWN_NODE}")
        elif view.could_hold(demand):
            return None
        else:
            lacks.append(f"{name} {_lack(demand, view)}")
    if not lacks:
        return "no node can hold it yet: the cluster has no nodes"
    more = f"; and {len(lacks) - _NAMED} more nodes" if len(lacks) > _NAMED else ""
    reasons = "; ".join(lacks[:_NAMED]) + more
    return f"no node of the cluster can ever hold it, so it waits for one that can: {reasons}"


def refusal(demand: Demand, nodes: NodeTable) -> str | None:
    """Say why a submission must be refused: what its target names does not exist; None if it does."""
    target = demand.target
    if target is None:
        return "GPU numbers belong to a node: name it in the target, as in n1::0,1" if demand.gpus else None
    view = nodes.peek(target.hostname)
    if view is None:
        return f"there is no node {target.hostname!r}; {_known_nodes(nodes)}"
    capacity = view.capacity
    if target.numa_node is not None and capacity.numa_node(target.numa_node) is None:
        has = _listed([numa.id for numa in capacity.numa])
        return f"node {view.name} has no NUMA node {target.numa_node}; it has {has}"
    missing = {*demand.gpus, *target.gpus}.difference(capacity.gpus)
    if missing:
        return f"node {view.name} has no GPU {_listed(missing)}; it has {_listed(capacity.gpus)}"
    return None


def _named(demand: Demand, nodes: NodeTable) -> Iterator[tuple[str, NodeView | None]]:
    names = nodes.names() if demand.target is None else [demand.target.hostname]
    return ((name, nodes.peek(name)) for name in names)


def _lack(demand: Demand, view: NodeView) -> str:
    return view.lacking(demand) or shortage(demand, view.capacity, Usage()) or ""


def _known_nodes(nodes: NodeTable) -> str:
    names = nodes.names()
    if not names:
        return "the cluster has no nodes yet"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"the nodes are {', '.join(names[:_NAMED])}{more}"


def _listed(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    more = f" and {len(found) - _NAMED_NUMBERS} more" if len(found) > _NAMED_NUMBERS else ""
    return f"{', '.join(map(str, found[:_NAMED_NUMBERS]))}{more}" if found else "none"
