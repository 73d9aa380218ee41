"""Which crash points there are to die at, at which passing, and what brings a daemon there. Pure.

No point is excused from anything: whatever dies where, every accepted task ends as its command did or as it
was asked to, in its first attempt, with its command started once. So there is no table of allowed outcomes.
Between `starting_journalled` and `command_started` nobody knows whether the command was begun; the engine
does, and a workload that is still only created there is started, one that runs is left alone.
"""

from dataclasses import dataclass
from enum import Enum

from kohakuriver.crash_points import CrashPoint


class Trigger(Enum):
    """What is done to an armed daemon. Tasks are submitted in every case but `FIRST_START`."""

    TASKS = "tasks"
    NEW_IMAGE = "tasks of an environment that the node does not have"
    STOP = "SIGTERM while a task runs"
    FIRST_START = "the first start of a host"
    ENROLMENT = "the first contact of a runner"
    VPS_STOP = "the stop of a VPS"
    NEW_VPS = "a VPS that is made"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`then`: where the daemon dies again, while it recovers. `both`: the other daemon dies with it."""

    point: CrashPoint
    passing: int = 1
    trigger: Trigger = Trigger.TASKS
    then: CrashPoint | None = None
    both: bool = False

    def __str__(self) -> str:
        second = f"-then-{self.then.value}" if self.then else ""
        kind = {Trigger.VPS_STOP: "-vps", Trigger.NEW_VPS: "-new-vps"}.get(self.trigger, "")
        return f"{self.point.value}-{self.passing}{kind}{second}{'-both' if self.both else ''}"

    @property
    def deaths(self) -> tuple[str, ...]:
        """What the daemon is armed with at each of its starts, as the environment says it."""
        first = f"{self.point.value}:{self.passing}"
        return (first, self.then.value) if self.then else (first,)

    @property
    def kills_host(self) -> bool:
        return self.point.value.startswith("host.")


_AT_FIRST = (
    Scenario(CrashPoint.HOST_SCHEMA_MADE, trigger=Trigger.FIRST_START),
    Scenario(CrashPoint.HOST_SCHEMA_COMMITTED, trigger=Trigger.FIRST_START),
    Scenario(CrashPoint.HOST_NODE_ENROLLED, trigger=Trigger.ENROLMENT),
)
# A restarted host has turns for the node's registration, submissions, answers and reports, in an order that
# differs. So what is about turns is tried at several of them.
_WITH_A_PASSING = (
    Scenario(CrashPoint.HOST_HEARTBEAT_APPLIED),
    Scenario(CrashPoint.HOST_TURN_DECIDED, 2),
    Scenario(CrashPoint.HOST_TURN_DECIDED, 3),
    Scenario(CrashPoint.HOST_ROWS_WRITTEN, 2),
    Scenario(CrashPoint.HOST_ROWS_WRITTEN, 5),
    Scenario(CrashPoint.HOST_TURN_COMMITTED, 2),
    Scenario(CrashPoint.HOST_TURN_COMMITTED, 6),
    Scenario(CrashPoint.HOST_DISPATCH_WOKEN, 2),
    Scenario(CrashPoint.HOST_TURN_ANSWERED, 4),
    Scenario(CrashPoint.RUNNER_ORDERS_JOURNALLED, 2),
    Scenario(CrashPoint.RUNNER_OUTPUT_WRITTEN, 5),
    Scenario(CrashPoint.RUNNER_REPORTS_COMMITTED, 3),
)
_OTHERWISE = (
    Scenario(CrashPoint.RUNNER_IMAGE_LOADED, trigger=Trigger.NEW_IMAGE),
    Scenario(CrashPoint.RUNNER_IMAGE_TAGGED_ONCE, trigger=Trigger.NEW_IMAGE),
    Scenario(CrashPoint.HOST_STOPPING, trigger=Trigger.STOP),
    Scenario(CrashPoint.HOST_STOPPED, trigger=Trigger.STOP),
    Scenario(CrashPoint.RUNNER_STOPPING, trigger=Trigger.STOP),
)
_OF_VPS = (
    Scenario(CrashPoint.RUNNER_VPS_KEPT, trigger=Trigger.VPS_STOP),
    Scenario(CrashPoint.RUNNER_END_SEEN, trigger=Trigger.VPS_STOP),
    Scenario(CrashPoint.RUNNER_END_JOURNALLED, trigger=Trigger.VPS_STOP),
    Scenario(CrashPoint.RUNNER_CONTAINER_REMOVED, trigger=Trigger.VPS_STOP),
)
_OF_NEW_VPS = (
    Scenario(CrashPoint.RUNNER_IMAGE_READY, trigger=Trigger.NEW_VPS),
    Scenario(CrashPoint.RUNNER_SANDBOX_TAKEN, trigger=Trigger.NEW_VPS),
    Scenario(CrashPoint.RUNNER_FILES_PREPARED, trigger=Trigger.NEW_VPS),
    Scenario(CrashPoint.RUNNER_CONTAINER_CREATED, trigger=Trigger.NEW_VPS),
)
_MORE_THAN_ONCE = (
    Scenario(CrashPoint.HOST_TURN_COMMITTED, 4, then=CrashPoint.HOST_NODE_REGISTERED),
    Scenario(CrashPoint.RUNNER_STARTING_JOURNALLED, then=CrashPoint.RUNNER_COMMAND_STARTED),
    Scenario(CrashPoint.RUNNER_OUTPUT_WRITTEN, 3, then=CrashPoint.RUNNER_OUTPUT_WRITTEN),
    Scenario(CrashPoint.RUNNER_END_SEEN, then=CrashPoint.RUNNER_END_JOURNALLED),
    Scenario(CrashPoint.HOST_ORDERS_DELIVERED, both=True),
    Scenario(CrashPoint.RUNNER_REPORTS_COMMITTED, 2, both=True),
)


def scenarios() -> tuple[Scenario, ...]:
    """At least one for every point there is."""
    named = (*_AT_FIRST, *_WITH_A_PASSING, *_OTHERWISE, *_MORE_THAN_ONCE)
    covered = {scenario.point for scenario in named} | {CrashPoint.RUNNER_VPS_KEPT}
    others = (Scenario(point) for point in CrashPoint if point not in covered)
    return (*named, *_OF_VPS, *_OF_NEW_VPS, *others)
