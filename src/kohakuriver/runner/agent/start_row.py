"""Starts that failed one after the other by the node's own doing: such a node fails tasks faster than others
run them, so it is taken out after a few, and given another chance after a pause that grows.

Each task counts once, so that nobody takes a node out with one that is tried again and again.
"""

import time
from collections.abc import Callable

import structlog

from kohakuriver.models.ids import TaskId
from kohakuriver.pauses import Pause

MOST_FAILURES = 3
_REMEMBERED_SECONDS = 3600.0
FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 600.0
_log = structlog.get_logger(__name__)


class StartRow:
    """`on_change` is told whenever `fault` comes or goes."""

    def __init__(
        self, on_change: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.fault: str | None = None
        self.on_change = on_change
        self._clock = clock
        self._failed: dict[TaskId, float] = {}
        self._least = MOST_FAILURES
        self._pause = Pause(FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)

    @property
    def pause_seconds(self) -> float:
        """How long the node stays out before it is given another chance."""
        return self._pause.seconds

    def failed(self, task_id: TaskId, sentence: str) -> None:
        """A task could not be started here, or its output not be had, for a reason that is not its own."""
        now = self._clock()
        recent = {task: at for task, at in self._failed.items() if now - at < _REMEMBERED_SECONDS}
        self._failed = {**recent, task_id: now}
        if self.fault is None and len(self._failed) >= self._least:
            self._pause.grow(now)
            count = len(self._failed)
            tasks = "a task" if count == 1 else f"{count} tasks in a row"
            self.fault = f"{tasks} could not be run here: {sentence}"
            _log.error("node_taken_out", reason=sentence, tasks=count, seconds=self.pause_seconds)
            self.on_change()

    def succeeded(self) -> None:
        """A task came to its end here."""
        self._failed, self._least = {}, MOST_FAILURES
        self._pause = Pause(FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        if self.fault is not None:
            self.fault = None
            self.on_change()

    def try_again(self) -> None:
        """Open the node again; until a task has come to its end the next failure takes it out at once."""
        if self.fault is not None:
            self.fault, self._failed, self._least = None, {}, 1
            _log.info("node_tried_again")
            self.on_change()
