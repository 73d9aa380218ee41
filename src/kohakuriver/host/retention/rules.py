"""For how long what is kept, by the settings, and when that is over. Pure but for the clock it is given."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from kohakuriver.host.control.clock import Clock
from kohakuriver.models.enums import LeftoverKind

_SLACK = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """Days by kind, as the settings KEEP_…_DAYS have them; 0: not removed for its age."""

    output: int = 180
    tasks: int = 365
    events: int = 90
    snapshots: int = 30
    images: int = 30
    local_temp: int = 90

    def days(self, kind: LeftoverKind) -> int:
        days: int = getattr(self, kind.value)
        return days

    def days_on_nodes(self, kind: LeftoverKind) -> int:
        """The same for what nodes have of tasks: without the record nobody could tell that it may go."""
        days = self.days(kind)
        return self.tasks if self.tasks and not 0 < days < self.tasks else days


class SteadyNow:
    """The time of day, but for what a clock gained by being set forward since the start.

    A clock that is wrong for a minute must not make everything look years old.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now()
        self._began_monotonic = clock.monotonic()

    def __call__(self) -> datetime:
        passed = timedelta(seconds=self._clock.monotonic() - self._began_monotonic)
        return min(self._clock.now(), self._began + passed + _SLACK)
