"""What each user has waiting, in tasks and bytes, and how much that may be.

A task waits from its submission until it is placed, approval included. What waits is kept in memory and on
the host's disk, and nobody but its owner wants it there. The record of a task that ended before it began
stays on the disk, so its size counts for a day longer: else who submits and kills in turn has no limit.
"""

from collections.abc import KeysView
from dataclasses import dataclass, field
from datetime import datetime

from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import QuotaExceeded
from kohakuriver.models.spec.size import bytes_of_all, spec_bytes
from kohakuriver.models.tasks import Task, TaskSpec

TRUSTED_FACTOR = 20
"""Whoever needs no approval may have so many times more waiting than a user: sweeps of 100,000 tasks."""
_WAITING = (TaskState.PENDING, TaskState.PENDING_APPROVAL)
_HOUR_SECONDS = 3600
_KEPT_HOURS = 24
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
class GivenUpWork:
    """Bytes of tasks that ended before they began, by owner and hour; only in this process's memory."""

    _by_hour: dict[str, dict[int, int]] = field(default_factory=dict)

    def add(self, task: Task, now: datetime) -> None:
        """Count a task that is ended now, if no attempt of it was ever made."""
        if task.state in _WAITING and not task.attempt.number:
            hours = self._by_hour.setdefault(task.owner, {})
            hour = _hour_of(now)
            hours[hour] = hours.get(hour, 0) + spec_bytes(task.spec)

    def size_bytes(self, owner: str, now: datetime) -> int:
        """What counts for the owner now; what is older is forgotten."""
        if owner not in self._by_hour:
            return 0
        oldest = _hour_of(now) - _KEPT_HOURS
        recent = {hour: size for hour, size in self._by_hour.pop(owner).items() if hour > oldest}
        if recent:
            self._by_hour[owner] = recent
        return sum(recent.values())


def _hour_of(moment: datetime) -> int:
    return int(moment.timestamp()) // _HOUR_SECONDS


@dataclass(slots=True)
class WaitingWork:
    """Totals by owner; `ClusterState.put` keeps them. `given_up` outlives a state that is read anew."""

    given_up: GivenUpWork = field(default_factory=GivenUpWork)
    _amounts: dict[str, _Amount] = field(default_factory=dict)

    @property
    def owners(self) -> KeysView[str]:
        """Those who have work waiting."""
        return self._amounts.keys()

    def tasks_of(self, owner: str) -> int:
        return self._amounts[owner].tasks if owner in self._amounts else 0

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

    def check(
        self, owner: str, specs: list[TaskSpec], limits: WaitingLimits, now: datetime, *, trusted: bool
    ) -> None:
        """Raise QuotaExceeded if these would be more than the owner may have waiting."""
        factor = TRUSTED_FACTOR if trusted else 1
        amount = self._amounts.get(owner, _Amount())
        if amount.tasks + len(specs) > limits.tasks * factor:
            raise QuotaExceeded(
                f"{owner} has {amount.tasks} tasks waiting, and {limits.tasks * factor} is the most; wait "
                "until some have started, or kill some (MAX_WAITING_TASKS_PER_USER of the host)"
            )
        size = amount.size_bytes + self.given_up.size_bytes(owner, now)
        if size + bytes_of_all(specs) > limits.mib * factor * _MIB:
            raise QuotaExceeded(
                f"the tasks of {owner} that wait, and those of the last day that ended before they began, "
                f"are {size / _MIB:.1f} MiB large, and {limits.mib * factor} MiB is the most; put data into "
                "files, or wait until some have started (MAX_WAITING_MIB_PER_USER of the host)"
            )
