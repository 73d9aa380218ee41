"""Waiting for a task through outages of the host: the task goes on without it, and so does the wait."""

import time
from collections.abc import Callable, Iterator

from kohakuriver.client.errors import TRANSIENT
from kohakuriver.client.records import Reply, TaskRecord
from kohakuriver.client.tasks import TasksApi
from kohakuriver.models.enums import TaskState
from kohakuriver.models.transitions import ENDED
from kohakuriver.pauses import growing_pauses

PATIENCE_SECONDS = 300.0


class Patience:
    """Says how long to pause before the next try, and raises the error when the host was gone for too long.

    `reached`: the host has answered before. A host that never did is an error at once.
    """

    def __init__(
        self,
        limit_seconds: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        *,
        reached: bool = True,
    ) -> None:
        self._limit_seconds = limit_seconds
        self._sleep = sleep
        self.reset()
        self._reached = reached

    def reset(self) -> None:
        """To be called whenever the host answered."""
        self._reached = True
        self._failing_since: float | None = None
        self._pauses = growing_pauses(0.2, 10.0, jitter=0)

    def bear(self, error: Exception) -> None:
        """Pause after a failure, longer each time; raises `error` when patience is over."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if not self._reached or now - self._failing_since >= self._limit_seconds:
            raise error
        self._sleep(next(self._pauses))


def has_ended(state: TaskState) -> bool:
    """Tell whether a task in this state will do no more by itself."""
    return state in ENDED


def watch_task(
    tasks: TasksApi, task_id: str, every_seconds: int = 30, patience: Patience | None = None
) -> Iterator[Reply[TaskRecord]]:
    """Yield the task now and after every `every_seconds` (at most 60), the last time when it has ended.

    Raises the host's failure when it outlasts `patience`; without one, also when the first call fails.
    """
    patience = patience or Patience(reached=False)
    wait_seconds = 0
    while True:
        try:
            reply = tasks.status(task_id, wait_seconds=wait_seconds)
        except TRANSIENT as error:
            patience.bear(error)
            continue
        # The second look comes soon: what waits still is reported then.
        wait_seconds = every_seconds if wait_seconds else min(every_seconds, 1)
        patience.reset()
        yield reply
        if has_ended(reply.value.status):
            return
