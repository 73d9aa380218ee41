"""Says on standard error that a task waits, and why: at once where only somebody's help lets it run."""

import sys
import time
from typing import TYPE_CHECKING

from kohakuriver.cli.console.plain_text import complain
from kohakuriver.cli.console.progress import Progress, StatusLine
from kohakuriver.cli.tasks.views import can_never_run_here, is_held_up, waiting_sentence
from kohakuriver.models.enums import TaskState

if TYPE_CHECKING:
    from kohakuriver.client.records import TaskRecord

_TOLD_AFTER_SECONDS = {TaskState.PENDING_APPROVAL: 0.0, TaskState.PENDING: 0.9, TaskState.ASSIGNING: 5.0}
"""Most tasks have their place, and run, before that."""


class WaitingNews:
    """Tells each kind of waiting once, when it has lasted a moment.

    A line of progress on a terminal shows it all; then only what nobody may overlook is told as well.
    """

    def __init__(self, line: StatusLine | Progress | None, kind: str = "task") -> None:
        self._line = line
        self._kind = kind
        self._is_shown = line is not None and sys.stderr.isatty()
        self._now: tuple[TaskState, bool, bool] | None = None
        self._since = 0.0
        self._told: tuple[TaskState, bool, bool] | None = None

    def look(self, task: "TaskRecord") -> None:
        """Take the newest record of the task."""
        never = can_never_run_here(task)
        # What was held up once may be so again and again.
        was_held_up = self._told == (task.status, never, True)
        now = (task.status, never, was_held_up or is_held_up(task))
        if self._now != now:
            self._now, self._since = now, time.monotonic()
        after = 0.0 if never else _TOLD_AFTER_SECONDS.get(task.status)
        if after is None or self._now == self._told or time.monotonic() - self._since < after:
            return
        if self._is_shown and after:
            return
        self._told = self._now
        if self._line is not None:
            self._line.clear()
        complain(waiting_sentence(task, self._kind))
