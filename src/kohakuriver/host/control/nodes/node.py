"""A node as the host holds it: its stored row, and what is only known while it beats."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec
import structlog

from kohakuriver.host.control.allowance import Allowance
from kohakuriver.host.store.records import NodeRow
from kohakuriver.models.abilities import HAD_BEFORE, Ability
from kohakuriver.models.enums import NodeStatus
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.resources import Demand, NodeCapacity, NumaNode, Usage
from kohakuriver.models.tasks import Task
from kohakuriver.scheduling.nodes import NodeView
from kohakuriver.wire.messages import Heartbeat, NodeFigures, Registration
from kohakuriver.wire.orphan import Orphan
from kohakuriver.wire.trust.signing import other_protocol

log = structlog.get_logger()

HISTORY_SAMPLES = 120
REACH = "reach"
"""The part of a node under which it is shown that this host cannot call it."""


class ClosedBy(StrEnum):
    """The kinds of reasons for which a node takes no new work."""

    UNREGISTERED = "unregistered"
    OFFLINE = "offline"
    DRAINING = "draining"
    NOT_CALLED = "not_called"
    ENDING = "ending"
    RESTORED = "restored"
    UNREACHABLE = "unreachable"
    FAULT = "fault"


class LiveNode(msgspec.Struct):
    """What the control loop knows of one approved node. `last_beat` is when it last beat or registered, in
    monotonic seconds.

    `accepted`: execute orders that this boot of its runner took in, by task. `ends_workloads`: it holds
    some that the ledger does not count, and was told to end them; until then it gets nothing new.
    `just_ended`: final records of tasks that it reported since its last heartbeat; one that was made before
    the report still lists them.
    `unknown_workloads`: how many more it holds whose records were lost by a restore of this host's state.
    `leftovers`: what it holds under other nodes' names and nobody else cares for, which takes its share;
    `take_over`: those of these names that somebody has decided about, until the runner has heard it.
    `differences`: settings that its runner had otherwise than this host when it registered, as sentences.
    `claim`: what somebody said in its name without proof, for whoever wonders why it is offline.
    `host_faults`: what this host found out about it, by part; replaced and never changed. `told` bounds the
    lines that it can add to histories of tasks, beside the begin and the end of each attempt.
    `awaits_call`: it has registered, and this host has not called it yet. `unreached_since`: monotonic time
    from which on calls to it do not get through; None: they do. `reached_boot`: the boot that was called.
    `progress`: what its last heartbeat said of images on their way to it, by task.
    `session` is the one that its heartbeats must name, `offered` the one that its next registration must
    name; both end with this host's process.
    """

    row: NodeRow
    online: bool = False
    figures: Heartbeat | None = None
    last_beat: float | None = None
    last_heartbeat: datetime | None = None
    beat_revision: int = -1
    session: str = ""
    offered: str = ""
    accepted: dict[TaskId, int] = msgspec.field(default_factory=dict)
    ends_workloads: bool = False
    just_ended: dict[TaskId, Task] = msgspec.field(default_factory=dict)
    unknown_workloads: int = 0
    orphans: tuple[Orphan, ...] = ()
    take_over: frozenset[str] = frozenset()
    differences: tuple[str, ...] = ()
    claim: str = ""
    host_faults: Mapping[str, str] = msgspec.field(default_factory=dict)
    awaits_call: bool = False
    unreached_since: float | None = None
    reached_boot: str = ""
    progress: Mapping[TaskId, str] = msgspec.field(default_factory=dict)
    told: Allowance = msgspec.field(default_factory=lambda: Allowance(most=100, seconds=60))
    history: deque[NodeFigures] = msgspec.field(default_factory=lambda: deque(maxlen=HISTORY_SAMPLES))

    @property
    def registration(self) -> Registration | None:
        return self.row.registration

    @property
    def faults(self) -> tuple[str, ...]:
        told = self.figures.faults if self.figures else ()
        return (*self.row.faults, *self.host_faults.values(), *told)

    def copy(self) -> "LiveNode":
        """As it is now, whatever happens to this one."""
        return changed(
            self,
            accepted=dict(self.accepted),
            just_ended=dict(self.just_ended),
            history=deque(self.history, HISTORY_SAMPLES),
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """What its administrator should know; never a reason to place nothing on it."""
        told = tuple(self.figures.notices if self.figures else ())
        return self.differences + told + tuple(_orphan_notices(self.row.hostname, self.orphans))

    def hear_other_protocol(self, version: int, address: str) -> None:
        """Somebody spoke in this node's name in another protocol; shown while the node is offline."""
        who = f"what calls itself {self.row.hostname} at {address} (not proven)"
        claim = other_protocol(who, version, "that runner, if it is this node's")
        if not self.online and claim != self.claim:
            self.claim = claim
            log.warning("other_protocol_heard", node=self.row.hostname, version=version, address=address)


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """A node as clients are shown it. `figures` is its last heartbeat."""

    row: NodeRow
    status: NodeStatus
    figures: Heartbeat | None
    last_heartbeat: datetime | None
    usage: Usage
    faults: tuple[str, ...]
    shared_storage: str
    tasks: int = 0
    notices: tuple[str, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    closed_reason: str = ""
    """In a few words why it takes no new work; empty: it does."""


def shared_storage_of(registration: Registration | None, cluster_id: str) -> str:
    """Judge the marker in a runner's SHARED_DIR: `same`, `none` or `foreign`."""
    if registration is None or not registration.shared_cluster_id:
        return "none"
    return "same" if registration.shared_cluster_id == cluster_id else "foreign"


def share_of(orphans: Iterable[Orphan]) -> Usage:
    """What of a node is taken by work under other nodes' names."""
    usage = Usage()
    for entry in orphans:
        usage.take(Demand(entry.cores, entry.memory_bytes, gpus=tuple(entry.gpus)))
    usage.tasks = 0  # none of them is a task of this node
    return usage


def _orphan_notices(hostname: str, orphans: Iterable[Orphan]) -> Iterator[str]:
    counts = Counter(entry.node for entry in orphans)
    for name, count in sorted(counts.items()):
        what = "1 workload runs" if count == 1 else f"{count} workloads run"
        yield (
            f"{what} here under the name of node {name}, and what they take is not given out; `kohakuriver "
            f"node leftovers {hostname}` shows them, and with --adopt {name} or --end {name} decides"
        )


def offers_of(registration: Registration, cluster_id: str) -> frozenset[Ability]:
    """What the node announced that it has of what work may need, as far as it holds for this cluster.

    Names that this version does not know are let be. A runner of an earlier version does not name all, or
    announces nothing; then only the marker shows shared storage.
    """
    told = registration.abilities
    offers = {Ability.SHARED_STORAGE} if told is None else {each for each in Ability if each in told}
    offers |= HAD_BEFORE.difference(registration.lacks)
    if shared_storage_of(registration, cluster_id) != "same":
        offers.discard(Ability.SHARED_STORAGE)
    return frozenset(offers)


def capacity_of(registration: Registration) -> NodeCapacity:
    return NodeCapacity(
        cores=registration.total_cores,
        memory_bytes=registration.total_ram_bytes,
        numa=tuple(NumaNode(n.id, tuple(n.cpus), n.memory_bytes) for n in registration.numa_topology),
        gpus=tuple(sorted(gpu.gpu_id for gpu in registration.gpu_info)),
    )


def view_of(node: LiveNode, cluster_id: str) -> NodeView:
    """The node as the scheduler sees it, with nothing given out but what work under other names takes.

    One that never registered has no capacity and stays closed.
    """
    name, usage, closed = node.row.hostname, share_of(node.orphans), closed_reason(node)
    registration = node.registration
    if registration is None:
        return NodeView(name, NodeCapacity(0, 0), usage, closed)
    return NodeView(
        name=name,
        capacity=capacity_of(registration),
        usage=usage,
        closed_reason=closed,
        offers=offers_of(registration, cluster_id),
        lacks={each: registration.lacks[each] for each in Ability if each in registration.lacks},
    )


def closed_reason(node: LiveNode) -> str:
    """Why it takes no new work, in a few words; empty if it does."""
    closed = closed_by(node)
    return closed[1] if closed is not None else ""


def closed_by(node: LiveNode) -> tuple[ClosedBy, str] | None:
    """What keeps new work from the node, as a kind and in a few words; None if nothing does."""
    if node.registration is None:
        return ClosedBy.UNREGISTERED, "has not registered yet"
    if not node.online:
        return ClosedBy.OFFLINE, "is offline"
    if node.row.draining:
        return ClosedBy.DRAINING, "is being drained"
    if node.awaits_call and node.unreached_since is None:
        return ClosedBy.NOT_CALLED, "has not answered the call of this host yet"
    if node.ends_workloads:
        return ClosedBy.ENDING, "is ending workloads that are not the cluster's any more"
    if node.unknown_workloads:
        lost = f"still runs {node.unknown_workloads} workloads that this host lost when it was restored"
        return ClosedBy.RESTORED, lost
    if REACH in node.host_faults:
        return ClosedBy.UNREACHABLE, f"has a fault: {node.host_faults[REACH]}"
    if node.faults:
        return ClosedBy.FAULT, f"has a fault: {node.faults[0]}"
    return None
