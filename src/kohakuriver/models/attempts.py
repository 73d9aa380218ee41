"""The record of an attempt: one try at running a task on one node."""

from datetime import datetime

import msgspec

from kohakuriver.models.enums import TaskState
from kohakuriver.models.records import changed


class Attempt(msgspec.Struct, frozen=True):
    """`number` counts a task's attempts from 1 and is the fence: what carries another number is void.

    `revision` is the number of the last report that was applied. `image_digest` says which image it ran in:
    the registry's digest of it, or its id where it came from no registry. `address` is the one that a VPS
    has, or had last, on its node's network. Byte counts are known once it has ended on its node. `end` is the
    state that it ended in, None while it goes on; one that was given up ended as `lost`.
    """

    number: int
    node: str | None = None
    """None: never placed, or the task went back to the queue from it."""
    revision: int = 0
    started_at: datetime | None = None
    completed_at: datetime | None = None
    stdout_path: str | None = None
    stderr_path: str | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    exit_code: int | None = None
    image_digest: str | None = None
    address: str | None = None
    end: TaskState | None = None
    message: str | None = None
    """Why it ended, where anything is to be said."""

    def ended(self, end: TaskState, at: datetime | None, message: str | None) -> "Attempt":
        return changed(self, end=end, completed_at=at, message=message)

    def left(self) -> "Attempt":
        """What a task that waits anew still has of it: where its output lies, until the next one begins.

        A VPS's address is asked for again.
        """
        return Attempt(
            self.number,
            stdout_path=self.stdout_path,
            stderr_path=self.stderr_path,
            address=self.address,
        )


NEVER_PLACED = Attempt(0)
