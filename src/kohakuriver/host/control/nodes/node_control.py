"""What may be asked of nodes. What changes something returns after the commit; nodes are read from memory,
which is the only one that knows their live figures.
"""

from functools import partial

import structlog

from kohakuriver.host.control.loop import ControlLoop
from kohakuriver.host.control.nodes import enrolling, orphan_choice
from kohakuriver.host.control.nodes import leaving as node_leaving
from kohakuriver.host.control.nodes.node import NodeSnapshot
from kohakuriver.host.control.nodes.pending_runners import PendingRunners
from kohakuriver.host.control.nodes.snapshots import NodeSnapshots
from kohakuriver.host.store.records import EnrolmentRow, JoinTokenRow
from kohakuriver.models.enums import NodeStatus, OrphanChoice
from kohakuriver.models.errors import NotFound
from kohakuriver.models.tasks import Task
from kohakuriver.wire.messages import NodeFigures
from kohakuriver.wire.trust.identity import Identity

log = structlog.get_logger()

HEALTH_SECONDS = 60


class NodeControl:
    """See `nodes.enrolling`, `nodes.leaving` and `nodes.orphan_choice` for what the calls mean."""

    def __init__(self, loop: ControlLoop, identity: Identity, waiting: PendingRunners) -> None:
        self._loop = loop
        self._identity = identity
        self._waiting = waiting
        self._snapshots = NodeSnapshots()

    def snapshots(self) -> list[NodeSnapshot]:
        """All nodes by name; one that is as it was is the same object as before."""
        return self._snapshots.of_all(self._loop.state)

    def openness(self) -> dict[str, tuple[NodeStatus, str]]:
        """Of each node whether it is online, and in a few words why it takes no new work (empty: it does)."""
        table = self._loop.state.table
        return {
            name: (
                NodeStatus.ONLINE if node.online else NodeStatus.OFFLINE,
                view.closed_reason if (view := table.peek(name)) else "",
            )
            for name, node in self._loop.state.nodes.items()
        }

    def health(self, hostname: str | None) -> list[tuple[str, list[NodeFigures]]]:
        """Samples of the last minute per node, oldest first, as the nodes' own clocks have them."""
        nodes = self._loop.state.nodes
        if hostname is not None and hostname not in nodes:
            raise NotFound(f"there is no node {hostname[:80]!r}")
        names = [hostname] if hostname is not None else sorted(nodes)
        return [(name, list(nodes[name].history)[-HEALTH_SECONDS:]) for name in names]

    async def drain(self, hostname: str, move: bool, by: str) -> list[Task]:
        """Close a node for new work; returns what is there still. Raises NotFound."""
        return await self._loop.call(partial(node_leaving.drain, hostname=hostname, move=move, by=by))

    async def undrain(self, hostname: str) -> None:
        await self._loop.call(partial(node_leaving.undrain, hostname=hostname))

    async def remove(self, hostname: str, force: bool) -> None:
        """Take a node out of the cluster; raises NotFound, or Conflict while it holds work."""
        await self._loop.call(partial(node_leaving.remove, hostname=hostname, force=force))

    async def decide_orphans(self, hostname: str, source: str, choice: OrphanChoice, by: str) -> int:
        """Returns how many workloads there are; raises NotFound, or Conflict while that node is here."""
        return await self._loop.call(
            partial(orphan_choice.decide, hostname=hostname, source=source, choice=choice, by=by)
        )

    def enrolments(self) -> list[EnrolmentRow]:
        """The runners that wait for approval."""
        return list(self._loop.state.enrolments.values())

    async def approve(self, hostname: str, fingerprint: str | None, by: str) -> None:
        await self._loop.call(
            partial(enrolling.approve_node, hostname=hostname, fingerprint=fingerprint, by=by)
        )

    async def reject(self, hostname: str, fingerprint: str | None, by: str) -> int:
        """Refuse who waits under that name; returns how many those were. Raises NotFound."""
        gone = await self._loop.call(
            partial(enrolling.reject_node, hostname=hostname, fingerprint=fingerprint)
        )
        for name in gone:
            self._waiting.refuse(name)
        log.info("node_rejected", node=hostname, fingerprints=gone, by=by)
        return len(gone)

    def join_tokens(self) -> list[JoinTokenRow]:
        return list(self._loop.state.join_tokens.values())

    async def create_join_token(self, by: str, hours: float) -> tuple[JoinTokenRow, str]:
        """Return the row and the token's text, which is shown once and kept nowhere."""
        return await self._loop.call(
            partial(enrolling.create_join_token, by=by, hours=hours, host=self._identity)
        )

    async def delete_join_token(self, token_id: str) -> None:
        await self._loop.call(partial(enrolling.delete_join_token, token_id=token_id))
