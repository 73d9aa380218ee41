"""One attempt of a task, watched as if it were the whole task: it is over when another attempt has begun."""

from collections.abc import Callable

from kohakuriver.host.api.tasks.log_tail import TaskWatch
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task


class AttemptWatch:
    """Gives the task's record as it is while the attempt counts, and then the record of the attempt alone.

    `of_attempt` makes that one of the task's newest record.
    """

    def __init__(self, watch: TaskWatch, attempt: int, of_attempt: Callable[[Task, int], Task]) -> None:
        self._watch = watch
        self._attempt = attempt
        self._of_attempt = of_attempt

    async def wait_ended(self, task_id: TaskId, seconds: float) -> Task:
        """Return the record when the task has ended, or when the time is over."""
        return self._seen(await self._watch.wait_ended(task_id, seconds))

    def live(self, task_id: TaskId) -> Task | None:
        task = self._watch.live(task_id)
        return None if task is None else self._seen(task)

    def _seen(self, task: Task) -> Task:
        return self._of_attempt(task, self._attempt)
