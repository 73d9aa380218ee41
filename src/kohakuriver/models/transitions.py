"""The life of a task as one table; a step that is not in it is a defect and raises."""

from itertools import pairwise

from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId

S = TaskState

TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    S.PENDING_APPROVAL: frozenset({S.PENDING, S.REJECTED, S.KILLED}),
    S.REJECTED: frozenset(),
    S.PENDING: frozenset({S.ASSIGNING, S.KILLED, S.FAILED}),
    S.ASSIGNING: frozenset({S.RUNNING, S.PENDING, S.FAILED, S.KILLED, S.LOST}),
    S.RUNNING: frozenset({S.PAUSED, S.COMPLETED, S.FAILED, S.KILLED, S.KILLED_OOM, S.STOPPED, S.LOST}),
    S.PAUSED: frozenset({S.RUNNING, S.KILLED, S.STOPPED, S.LOST}),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset({S.ASSIGNING}),
    S.KILLED: frozenset(),
    S.KILLED_OOM: frozenset(),
    S.STOPPED: frozenset({S.ASSIGNING}),
    # Back to `pending` goes only what asks to be retried.
    S.LOST: frozenset(
        {S.PENDING, S.RUNNING, S.PAUSED, S.COMPLETED, S.FAILED, S.KILLED, S.KILLED_OOM, S.STOPPED}
    ),
}

VPS_ONLY: frozenset[tuple[TaskState, TaskState]] = frozenset(
    {
        (S.FAILED, S.ASSIGNING),
        (S.STOPPED, S.ASSIGNING),
        (S.RUNNING, S.STOPPED),
        (S.PAUSED, S.STOPPED),
        (S.LOST, S.STOPPED),
    }
)

FINAL: frozenset[TaskState] = frozenset({S.REJECTED, S.COMPLETED, S.FAILED, S.KILLED, S.KILLED_OOM})
"""States in which a command task stays for ever."""

ENDED: frozenset[TaskState] = FINAL | {S.STOPPED}
"""States in which nothing of a task runs; a VPS can leave two of them by a restart."""

ALIVE: frozenset[TaskState] = frozenset({S.RUNNING, S.PAUSED})
"""States in which the processes of a task are there."""

HOLDING: frozenset[TaskState] = frozenset({S.ASSIGNING, S.RUNNING, S.PAUSED, S.LOST})
"""States in which a task holds its share of its node's resources. A lost one may still run there."""

RESTARTABLE: frozenset[TaskState] = frozenset({S.STOPPED, S.FAILED})
"""States from which a VPS can be started again."""

QUEUED: frozenset[TaskState] = frozenset({S.PENDING_APPROVAL, S.PENDING})


class ForbiddenTransition(Exception):
    """A step outside the table was tried; a programming error, never a user's.

    `step` is what the table forbids; the whole sentence says whose step it was as well.
    """

    def __init__(
        self, before: TaskState, after: TaskState, task_id: TaskId, attempt: int, node: str | None
    ) -> None:
        self.step = f"a task cannot go from {before.value} to {after.value}"
        super().__init__(f"{self.step}: task {task_id}, attempt {attempt}, on {node or 'no node'}")
        self.before = before
        self.after = after
        self.task_id = task_id
        self.attempt = attempt
        self.node = node


def is_permitted(before: TaskState, after: TaskState, *, is_vps: bool = False) -> bool:
    return after in TRANSITIONS[before] and (is_vps or (before, after) not in VPS_ONLY)


def steps_to(before: TaskState, after: TaskState, *, is_vps: bool = False) -> tuple[TaskState, ...]:
    """Return the states to pass through from `before` to `after`, both ends' rules kept, `before` left out.

    What happened may be known later than it happened: a task that is on record as assigned or paused has run
    on and failed. Then the way leads over `running`. Without any step there is no way.
    """
    for steps in ((after,), (S.RUNNING, after)):
        if all(is_permitted(*pair, is_vps=is_vps) for pair in pairwise((before, *steps))):
            return steps
    return ()
