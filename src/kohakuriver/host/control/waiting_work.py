"""What each user has waiting, in tasks and bytes, and how much that may be.

A task waits from its submission until it is placed, approval included. What waits is kept in memory and on
the host's disk, and nobody but its owner wants it there.
"""

from dataclasses import dataclass, field

from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import QuotaExceeded
from kohakuriver.models.spec_size import bytes_of_all, spec_bytes
from kohakuriver.models.tasks import Task, TaskSpec

TRUSTED_FACTOR = 20
"""Whoever needs no approval may have so many times more waiting than a user: sweeps of 100,000 tasks."""
_WAITING = (TaskState.PENDING, TaskState.PENDING_APPROVAL)
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class WaitingLimits:
    """The most that one user may have waiting."""

    tasks: int = 10_000
    mib: int = 64


@dataclass(slots=True)
class _Amount:
    tasks: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class WaitingWork:
    """Totals by owner; `ClusterState.put` keeps them."""

    _amounts: dict[str, _Amount] = field(default_factory=dict)

    def add(self, task: Task) -> None:
        """Count a task in, if it waits."""
        if task.state in _WAITING:
            amount = self._amounts.setdefault(task.owner, _Amount())
            amount.tasks += 1
            amount.size_bytes += spec_bytes(task.spec)

    def take_out(self, task: Task) -> None:
        """Undo `add` of exactly this record."""
        if task.state not in _WAITING:
            return
        amount = self._amounts[task.owner]
        amount.tasks -= 1
        amount.size_bytes -= spec_bytes(task.spec)
        if not amount.tasks:
            del self._amounts[task.owner]

    def check(self, owner: str, specs: list[TaskSpec], limits: WaitingLimits, *, trusted: bool) -> None:
        """Raise QuotaExceeded if these would be more than the owner may have waiting."""
        factor = TRUSTED_FACTOR if trusted else 1
        amount = self._amounts.get(owner, _Amount())
        if amount.tasks + len(specs) > limits.tasks * factor:
            raise QuotaExceeded(
                f"{owner} has {amount.tasks} tasks waiting, and {limits.tasks * factor} is the most; wait "
                "until some have started, or kill some (MAX_WAITING_TASKS_PER_USER of the host)"
            )
        if amount.size_bytes + bytes_of_all(specs) > limits.mib * factor * _MIB:
            raise QuotaExceeded(
                f"the waiting tasks of {owner} are {amount.size_bytes / _MIB:.1f} MiB large, and "
                f"{limits.mib * factor} MiB is the most; put data into files, wait until some have "
                "started, or kill some (MAX_WAITING_MIB_PER_USER of the host)"
            )
