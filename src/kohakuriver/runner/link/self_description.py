"""What this node says about itself: in registrations, in heartbeats, and to whoever checks an order.

The machine is looked at again before each registration; what changes in between (a GPU driver that came up,
shared storage that was mounted, an engine that opened and lacks something) is noticed at the next heartbeat
and leads to a new registration.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kohakuriver import __version__
from kohakuriver.models.abilities import LACKS, Ability
from kohakuriver.models.enums import TaskState
from kohakuriver.models.resources import Gpu
from kohakuriver.runner.agent.attempt_list import STATUS_OF
from kohakuriver.runner.agent.order_spec import NodeFacts
from kohakuriver.runner.engines.contract.engine import OrphanWorkload
from kohakuriver.runner.monitor.monitor import Inventory, Monitor
from kohakuriver.wire.bounds import MOST_ORPHANS
from kohakuriver.wire.messages import (
    SESSIONS,
    AttemptState,
    Heartbeat,
    Killed,
    NodeFigures,
    NumaInfo,
    Registration,
)
from kohakuriver.wire.orphan import Orphan

MARKER_NAME = ".kohakuriver-cluster"
_KEPT_SAMPLES = 120
_MARKER_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DescriptionParts:
    """Fixed facts of this runner. `settings`: those that must match the host's."""

    hostname: str
    url: str
    heartbeat_interval_seconds: int
    shared_dir: Path
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """What is wrong here and keeps new work away, what an administrator should know beside that, and what
    runs here under other nodes' names."""

    faults: Sequence[str]
    notices: Sequence[str] = ()
    orphans: Sequence[OrphanWorkload] = ()


class SelfDescription:
    """This node as it is now. `cluster_id` tells the cluster that the runner belongs to, None before that."""

    def __init__(
        self,
        parts: DescriptionParts,
        monitor: Monitor,
        inventory: Inventory,
        cluster_id: Callable[[], str | None],
    ) -> None:
        self.boot_id = uuid.uuid4().hex
        self._parts = parts
        self._monitor = monitor
        self._inventory = inventory
        self._cluster_id = cluster_id
        self._marker: str | None = None
        self._marker_reader: asyncio.Future[str | None] | None = None
        self._marker_registered: str | None = None
        self._lacks_registered: dict[str, str] = {}
        self._session = ""
        self._revision = 0
        self._history: deque[NodeFigures] = deque(maxlen=_KEPT_SAMPLES)

    def facts(self) -> NodeFacts:
        """What an order is checked against."""
        inventory = self._inventory
        return NodeFacts(
            cores=inventory.cores,
            memory_bytes=inventory.memory_bytes,
            numa=inventory.numa,
            gpus=tuple(
                Gpu(gpu.gpu_id, gpu.uuid, gpu.name, gpu.memory_total_bytes, gpu.vendor, gpu.numa_node)
                for gpu in inventory.gpus
            ),
            shared_storage=self._has_shared_storage(),
        )

    async def look(self) -> None:
        """Look at the machine and its shared storage anew."""
        self._inventory = await asyncio.to_thread(self._monitor.inventory)
        await self.look_at_marker()

    async def look_at_marker(self) -> None:
        """Read the marker of the shared storage; a hanging file server counts as none and holds up little."""
        if self._marker_reader is None or self._marker_reader.done():
            self._marker_reader = asyncio.ensure_future(
                asyncio.to_thread(_read_marker, self._parts.shared_dir)
            )
        done, _ = await asyncio.wait((self._marker_reader,), timeout=_MARKER_PATIENCE_SECONDS)
        self._marker = self._marker_reader.result() if done else None

    def _has_shared_storage(self) -> bool:
        return self._marker is not None and self._marker == self._cluster_id()

    def _lacks(self, engines_lack: Mapping[Ability, str]) -> dict[str, str]:
        """Which abilities the node has not got now, each with the reason. It has all others."""
        storage = Ability.SHARED_STORAGE
        own = {} if self._has_shared_storage() else {storage: LACKS[storage]}
        return {ability.value: reason for ability, reason in {**own, **engines_lack}.items()}

    def registration(self, engines_lack: Mapping[Ability, str]) -> Registration:
        """`engines_lack`: what its engines take from the node's abilities, with the reasons."""
        lacks = self._lacks(engines_lack)
        self._marker_registered, self._lacks_registered = self._marker, lacks
        inventory = self._inventory
        return Registration(
            hostname=self._parts.hostname,
            url=self._parts.url,
            total_cores=inventory.cores,
            total_ram_bytes=inventory.memory_bytes,
            numa_topology=[
                NumaInfo(id=n.id, cpus=list(n.cpus), memory_bytes=n.memory_bytes) for n in inventory.numa
            ],
            gpu_info=list(inventory.gpus),
            heartbeat_interval_seconds=self._parts.heartbeat_interval_seconds,
            shared_cluster_id=self._marker,
            runner_version=__version__,
            boot_id=self.boot_id,
            session=self._session,
            capabilities=["command", "docker", SESSIONS],
            abilities=[ability.value for ability in Ability if ability.value not in lacks],
            lacks=lacks,
            settings=self._parts.settings,
        )

    def use_session(self, session: str) -> None:
        """Name the session that the host offered or took in from now on."""
        self._session = session

    def is_outdated(self, engines_lack: Mapping[Ability, str]) -> bool:
        """Tell whether the last registration no longer says what is there."""
        latest = self._monitor.latest()
        gpus_now = {gpu.uuid for gpu in latest.gpu_info} if latest else set()
        gpus_new = gpus_now - {gpu.uuid for gpu in self._inventory.gpus}
        told = self._marker_registered, self._lacks_registered
        return (self._marker, self._lacks(engines_lack)) != told or bool(gpus_new)

    def heartbeat(
        self, attempts: list[AttemptState], orders_seen: int, condition: Condition, *, complete: bool
    ) -> Heartbeat:
        """Make the next heartbeat; its samples are kept until `heartbeat_arrived`."""
        self._revision += 1
        self._history.extend(self._monitor.drain())
        latest = self._monitor.latest()
        return Heartbeat(
            running_tasks=[entry.task_id for entry in attempts if entry.status is TaskState.RUNNING],
            killed_tasks=[
                Killed(
                    task_id=entry.task_id, reason="oom" if entry.status is TaskState.KILLED_OOM else "kill"
                )
                for entry in attempts
                if entry.status in (TaskState.KILLED, TaskState.KILLED_OOM)
            ],
            cpu_percent=latest.cpu_percent if latest else 0.0,
            memory_percent=latest.memory_percent if latest else 0.0,
            memory_used_bytes=latest.memory_used_bytes if latest else 0,
            memory_total_bytes=latest.memory_total_bytes if latest else self._inventory.memory_bytes,
            current_avg_temp=latest.current_avg_temp if latest else None,
            current_max_temp=latest.current_max_temp if latest else None,
            gpu_info=list(latest.gpu_info) if latest else list(self._inventory.gpus),
            runner_version=__version__,
            attempts=attempts,
            complete=complete,
            orders_seen=orders_seen,
            revision=self._revision,
            boot_id=self.boot_id,
            session=self._session,
            history=list(self._history),
            faults=[*condition.faults, *self._monitor.faults()],
            notices=list(condition.notices),
            leftovers=[self._orphan(each) for each in condition.orphans[:MOST_ORPHANS]],
        )

    def _orphan(self, found: OrphanWorkload) -> Orphan:
        gpus = self._inventory.gpus
        return Orphan(
            node=found.node,
            task_id=str(found.task_id),
            attempt=found.attempt,
            status=STATUS_OF[found.state],
            cores=found.cores,
            memory_bytes=found.memory_bytes,
            names_cluster=found.names_cluster,
            gpus=[
                gpu.gpu_id
                for gpu in gpus
                if gpu.uuid in found.gpu_uuids or (found.all_amd and gpu.vendor == "amd")
            ],
        )

    def heartbeat_arrived(self, beat: Heartbeat) -> None:
        """Forget the samples that the host has."""
        for _ in range(min(len(beat.history), len(self._history))):
            self._history.popleft()


def _read_marker(shared_dir: Path) -> str | None:
    try:
        with (shared_dir / MARKER_NAME).open(errors="replace") as file:
            return file.readline(200).strip() or None
    except OSError:
        return None
