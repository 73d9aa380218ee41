"""The list of tasks as JSON, of which only those are encoded anew that have changed."""

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from kohakuriver.host.api.records import task_record
from kohakuriver.host.auth import Action, may
from kohakuriver.models.ids import TaskId

if TYPE_CHECKING:
    from kohakuriver.host.api.permissions import Call
    from kohakuriver.host.control import TaskFilter, TaskMark

_encode = msgspec.json.Encoder().encode
_MOST_KEPT = 1000
"""As many as the longest list has."""
_MOST_BYTES = 4096
"""What is larger is not kept."""

_Kept = tuple[int, bytes]
"""What the text was made of, as 64 bits of a hash that is keyed anew in each process, and the text."""


class TaskTexts:
    """Keeps the texts of the tasks that were listed last, for as long as nothing in them has changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[TaskId, bool], _Kept] = {}

    async def render(self, call: "Call", wanted: "TaskFilter") -> bytes:
        """Return the whole list as the caller may see it."""
        listed = await call.control.tasks.select_with_kept(wanted, partial(self._text_of, call))
        texts: list[bytes] = []
        for mark, found in reversed(listed):  # those that go first, being kept for longest, are the oldest
            text = found
            if not isinstance(text, bytes):
                text = _encode(task_record(text, call))
                if len(text) <= _MOST_BYTES:
                    self._kept[_key_of(call, mark)] = _state_of(call, mark), text
            texts.append(text)
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return b"[" + b",".join(reversed(texts)) + b"]"

    def _text_of(self, call: "Call", mark: "TaskMark") -> bytes | None:
        """Called in a reader's thread."""
        kept = self._kept.get(_key_of(call, mark))
        return kept[1] if kept is not None and kept[0] == _state_of(call, mark) else None


def _key_of(call: "Call", mark: "TaskMark") -> tuple[TaskId, bool]:
    return mark.id, may(call.actor, Action.READ_ENVIRONMENT_VALUES, mark.owner)


def _state_of(call: "Call", mark: "TaskMark") -> int:
    """Of the task, and of the people whom its text names by numbers that are not in its record."""
    number = call.parts.auth.number_of
    return hash((mark, number(mark.owner), None if mark.decided_by is None else number(mark.decided_by)))
