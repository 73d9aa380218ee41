"""The kinds of lines in the histories of tasks. Clients rely on them: a kind is added, never changed.

`docs/events.md` is made from these by `tools/event_kinds.py`.
"""

from enum import StrEnum
from typing import Self

from kohakuriver.models.enums import OrderKind, TaskState


class EventKind(StrEnum):
    """What has happened to a task; `sentence` says it in full.

    The first ones are named for the state that the task has gone into; not each way into a state is told so.
    """

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Self:
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.sentence = sentence
        return kind

    PENDING = "pending", "An operator has approved it, and it waits for room."
    REJECTED = "rejected", "An operator has rejected it; it never runs."
    ASSIGNING = "assigning", "A new attempt was given to a node, which the detail names."
    RUNNING = "running", "It runs, for the first time or after a pause."
    PAUSED = "paused", "It is paused."
    COMPLETED = "completed", "Its command has ended with status 0."
    FAILED = "failed", "It has ended in another way, or could not be run; the detail says why."
    KILLED = "killed", "It was killed."
    KILLED_OOM = "killed_oom", "The OOM killer of its node has ended it: it wanted more memory than it has."
    STOPPED = "stopped", "The VPS was stopped and can be started again."
    LOST = "lost", "It is not known what has become of it on its node."

    SUBMITTED = "submitted", "Somebody has submitted it."
    KILL_REQUESTED = "kill_requested", "Somebody wants it killed; its node is told so."
    PAUSE_REQUESTED = "pause_requested", "Somebody wants it paused; its node is told so."
    RESUME_REQUESTED = "resume_requested", "Somebody wants it to go on after a pause; its node is told so."
    MOVE_REQUESTED = "move_requested", "Its node is drained: it is ended there to run again elsewhere."
    STOP_REQUESTED = "stop_requested", "Somebody wants the VPS to be stopped, or to stay stopped."
    RESTART_REQUESTED = "restart_requested", "Somebody wants the VPS to be stopped and started again."
    DELETE_REQUESTED = "delete_requested", "Somebody wants the VPS, which has ended, to be deleted."

    EXECUTE_REFUSED = (
        "execute_refused",
        "Its node refuses to begin an attempt that has begun or ended already.",
    )
    KILL_REFUSED = "kill_refused", "Its node refuses to kill it; the detail says why."
    PAUSE_REFUSED = "pause_refused", "Its node refuses to pause it; the detail says why."
    RESUME_REFUSED = "resume_refused", "Its node refuses to let it go on; the detail says why."
    STOP_REFUSED = "stop_refused", "Its node refuses to stop the VPS; the detail says why."
    RESTART_WAITS = "restart_waits", "The VPS starts again once its node takes work and has room for it."
    RESTART_REFUSED = "restart_refused", "The VPS cannot be started again; the detail says why."

    NEVER_STARTED = (
        "never_started",
        "Its node did not begin the attempt. It waits anew, or is killed if somebody wanted that.",
    )
    RETRIED = "retried", "The attempt did not end by itself; the task waits anew, and has used up a retry."
    MOVED = "moved", "The attempt was ended to move the task; it waits anew, and no retry is used up."
    NODE_SILENT = "node_silent", "Its node says nothing any more; it is lost until the node comes back."
    NODE_REMOVED = "node_removed", "Its node was removed from the cluster while it held the task."
    VANISHED = "vanished", "Its node does not hold it any more, and how it ended is not known."
    FOUND_AGAIN = "found_again", "It was lost, and its node reports it again."
    TAKEN_UP_AGAIN = (
        "taken_up_again",
        "Its node runs it, has lost its own record of it, and is told to go on.",
    )
    ADOPTED = (
        "adopted",
        "A node goes on with what it holds of it: an attempt from after the backup that the host was "
        "restored from, or work that stood under another node's name.",
    )
    RESTORED = (
        "restored",
        "The host was restored from a backup. What waited for room then waits for an operator.",
    )

    SESSION_CHANGED = "session_changed", "The VPS has another address on its node, or another notice."
    REPORTED_AGAIN = (
        "reported_again",
        "Its node has reported the same state once more, perhaps with more about it.",
    )
    STALE_REPORT = (
        "stale_report",
        "A node has reported an attempt that does not count any more; nothing follows.",
    )
    IMPOSSIBLE_REPORT = "impossible_report", "A node has reported a step that cannot be; nothing follows."

    @classmethod
    def of_step(cls, to: TaskState) -> "EventKind":
        """The kind that is named for a state."""
        return cls[to.name]

    @classmethod
    def of_refusal(cls, order: OrderKind) -> "EventKind":
        """A runner refused that order."""
        return cls[f"{order.name}_REFUSED"]
