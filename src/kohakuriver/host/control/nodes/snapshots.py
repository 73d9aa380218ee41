"""Nodes as clients are shown them: a node that is as it was gives the same snapshot object again.

So whoever makes something of a snapshot (a text, an answer) can keep that by it. What a snapshot is made of
is replaced and never changed in place (row, heartbeat, the scheduler's view), so identity tells; what is
given out is counted in place, and is compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kohakuriver.host.control.nodes.node import LiveNode, NodeSnapshot, shared_storage_of
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.store.records import NodeRow
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.resources import Usage
from kohakuriver.scheduling.nodes import NodeView
from kohakuriver.wire.messages import Heartbeat


@dataclass(frozen=True, slots=True)
class _Kept:
    row: NodeRow
    figures: Heartbeat | None
    online: bool
    claim: str
    view: NodeView | None
    host_faults: Mapping[str, str]
    snapshot: NodeSnapshot

    def is_of(self, node: LiveNode, view: NodeView | None) -> bool:
        return (
            self.view is view
            and (view is None or self.snapshot.usage == view.usage)
            and self.figures is node.figures
            and self.row is node.row
            and self.online == node.online
            and self.claim == node.claim
            and self.host_faults is node.host_faults
        )


class NodeSnapshots:
    """Used only from the event loop."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def of_all(self, state: ClusterState) -> list[NodeSnapshot]:
        """One for each node, by name."""
        before, self._kept = self._kept, {}
        for name in sorted(state.nodes):
            node, view = state.nodes[name], state.table.peek(name)
            kept = before.get(name)
            if kept is None or not kept.is_of(node, view):
                snapshot = _snapshot(node, view, state.cluster_id)
                kept = _Kept(
                    node.row, node.figures, node.online, node.claim, view, node.host_faults, snapshot
                )
            self._kept[name] = kept
        return [kept.snapshot for kept in self._kept.values()]


def _snapshot(node: LiveNode, view: NodeView | None, cluster_id: str) -> NodeSnapshot:
    return NodeSnapshot(
        row=node.row,
        status=NodeStatus.ONLINE if node.online else NodeStatus.OFFLINE,
        figures=node.figures,
        last_heartbeat=node.last_heartbeat,
        usage=view.usage.copy() if view else Usage(),
        faults=node.faults + ((node.claim,) if node.claim and not node.online else ()),
        shared_storage=shared_storage_of(node.registration, cluster_id),
        tasks=view.usage.tasks if view else 0,
        notices=node.notices,
        orphans=node.orphans,
        closed_reason=view.closed_reason if view else "",
    )
