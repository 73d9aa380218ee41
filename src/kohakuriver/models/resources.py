"""What nodes have, what tasks ask of them, and what of it is given out."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from kohakuriver.models.abilities import Ability
from kohakuriver.models.spec.amounts import ROUNDING, Cores, exact, mib
from kohakuriver.models.spec.targets import Target


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node: its logical CPUs and its memory."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as the node numbers it; `uuid` survives a reboot, the index may not."""

    index: int
    uuid: str
    name: str
    memory_total_bytes: int
    vendor: str = "nvidia"
    numa_node: int | None = None


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """What a node announced at registration; nothing here changes while its runner runs."""

    cores: int
    memory_bytes: int
    numa: tuple[NumaNode, ...] = ()
    gpus: tuple[int, ...] = ()

    def numa_node(self, numa_id: int) -> NumaNode | None:
        return next((numa for numa in self.numa if numa.id == numa_id), None)


class Demand(msgspec.Struct, frozen=True):
    """What one task needs. Zero cores or bytes: nothing is asked for, and nothing taken from the ledger.

    `target` None: any node. `needs`: the work can run on no node that lacks one of them.
    `avoid`: a node that is taken only where no other has room, because it lost this work before.
    """

    cores: Cores = 1
    memory_bytes: int = 0
    target: Target | None = None
    gpus: tuple[int, ...] = ()
    needs: frozenset[Ability] = frozenset()
    avoid: str | None = None


@dataclass(slots=True)
class Usage:
    """What of a node is given out, and to how many tasks; some ask for nothing that is counted.

    Mutable working state of one scheduling pass; `copy` before sharing.
    """

    cores: Cores = 0
    memory_bytes: int = 0
    tasks: int = 0
    gpus: set[int] = field(default_factory=set)
    numa_cores: dict[int, Cores] = field(default_factory=dict)
    numa_memory: dict[int, int] = field(default_factory=dict)

    def copy(self) -> "Usage":
        return Usage(
            self.cores,
            self.memory_bytes,
            self.tasks,
            set(self.gpus),
            dict(self.numa_cores),
            dict(self.numa_memory),
        )

    def take(self, demand: Demand) -> None:
        """Add a demand; the caller has checked with `shortage` that it fits."""
        self._shift(demand, 1)
        self.gpus.update(demand.gpus)

    def give_back(self, demand: Demand) -> None:
        self._shift(demand, -1)
        self.gpus.difference_update(demand.gpus)

    def _shift(self, demand: Demand, sign: int) -> None:
        self.cores = exact(self.cores + sign * demand.cores)
        self.memory_bytes += sign * demand.memory_bytes
        self.tasks += sign
        numa = demand.target.numa_node if demand.target else None
        if numa is not None:
            _add(self.numa_cores, numa, sign * demand.cores)
            _add(self.numa_memory, numa, sign * demand.memory_bytes)


def _add(amounts: dict[int, Any], key: int, change: Cores) -> None:
    """Amounts of zero are not kept, so that a usage given back equals one never taken."""
    amount = exact(amounts.get(key, 0) + change)
    if amount:
        amounts[key] = amount
    else:
        amounts.pop(key, None)


def fits(demand: Demand, capacity: NodeCapacity, used: Usage) -> bool:
    """Tell whether `shortage` finds none, without the cost of saying it."""
    if demand.cores and capacity.cores - used.cores < demand.cores - ROUNDING:
        return False
    if demand.memory_bytes and capacity.memory_bytes - used.memory_bytes < demand.memory_bytes:
        return False
    plain = not demand.gpus and (demand.target is None or demand.target.numa_node is None)
    return plain or shortage(demand, capacity, used) is None


def shortage(demand: Demand, capacity: NodeCapacity, used: Usage) -> str | None:
    """Say in a few words why the demand does not fit beside what is used, or None if it fits.

    With an empty `Usage` the answer tells whether the node could ever hold it.
    """
    numa_id = demand.target.numa_node if demand.target else None
    pools = [("", capacity.cores, used.cores, capacity.memory_bytes, used.memory_bytes)]
    if numa_id is not None:
        numa = capacity.numa_node(numa_id)
        if numa is None:
            return f"has no NUMA node {numa_id}"
        pools.append(
            (
                f" on NUMA node {numa_id}",
                len(numa.cpus),
                used.numa_cores.get(numa_id, 0),
                numa.memory_bytes,
                used.numa_memory.get(numa_id, 0),
            )
        )
    for where, cores, cores_used, memory, memory_used in pools:
        if demand.cores and cores - cores_used < demand.cores - ROUNDING:
            free = exact(max(cores - cores_used, 0))
            return f"{_cores(demand.cores)} wanted{where}, {free} of {cores} free"
        if demand.memory_bytes and memory - memory_used < demand.memory_bytes:
            return (
                f"{mib(demand.memory_bytes)} memory wanted{where}, "
                f"{mib(max(memory - memory_used, 0))} of {mib(memory)} free"
            )
    return _gpu_shortage(demand, capacity, used)


def _gpu_shortage(demand: Demand, capacity: NodeCapacity, used: Usage) -> str | None:
    missing = [gpu for gpu in demand.gpus if gpu not in capacity.gpus]
    if missing:
        return f"has no GPU {', '.join(map(str, missing))}"
    busy = sorted(used.gpus.intersection(demand.gpus))
    if busy:
        return f"GPU {', '.join(map(str, busy))} in use"
    return None


def _cores(count: Cores) -> str:
    return "1 core" if count == 1 else f"{count} cores"
