"""What a restored database says of its restore, so that the host that opens it gives nothing out twice.

The mark is one row of `meta`. The restore writes it; the control room reads it and notes what is settled.
"""

import msgspec

from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId

META_KEY = "restored"


class RestoreMark(msgspec.Struct, frozen=True, kw_only=True):
    """`gaps`: (first, last) id of each stretch of ids that were given out, or may have been, after a backup
    that was restored; what they named is not in this database. `newest_id`: the highest id in the backup.

    `attempt_floor`: attempts of tasks that are older than the restore are numbered above it. `settled`: the
    queue and the orders of the backup have been seen to. `heard`: nodes that have told since what they hold.
    """

    at: str
    backup_made_at: str
    newest_id: int
    attempt_floor: int
    gaps: tuple[tuple[int, int], ...]
    settled: bool = False
    heard: tuple[str, ...] = ()

    @property
    def highest_id(self) -> int:
        """No id up to this one may be given out (again)."""
        return max(last for _, last in self.gaps)

    def is_of_backup(self, task_id: TaskId) -> bool:
        """Whether a task of this database was in the backup."""
        return task_id <= self.newest_id

    def is_lost(self, task_id: TaskId) -> bool:
        """Whether an id that this database does not know may be one that it lost by a restore."""
        return any(first <= task_id <= last for first, last in self.gaps)

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()


def decode_mark(text: str) -> RestoreMark:
    """Raises InvalidInput if the text is no mark."""
    try:
        return msgspec.json.decode(text, type=RestoreMark)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the database's mark of its restore cannot be read: {error}") from error
