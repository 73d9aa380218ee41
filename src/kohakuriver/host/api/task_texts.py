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
_MOST_KEPT = 1200
"""The longest list, and what may be added before it is asked for again."""
_MOST_BYTES = 4096
"""What is larger is not kept."""

_Numbers = tuple[int | None, int | None]
_Kept = tuple["TaskMark", _Numbers, bytes]


class TaskTexts:
    """Keeps the texts of the tasks that were listed last, for as long as nothing in them has changed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[TaskId, bool], _Kept] = {}

    async def render(self, call: "Call", wanted: "TaskFilter") -> bytes:
        """Return the whole list as the caller may see it."""
        listed = await call.control.list_with_kept(wanted, partial(self._text_of, call))
        texts: list[bytes] = []
        for mark, found in reversed(listed):  # those that go first, being kept for longest, are the oldest
            text = found
            if not isinstance(text, bytes):
                text = _encode(task_record(text, call))
                if len(text) <= _MOST_BYTES:
                    self._kept[_key_of(call, mark)] = mark, _numbers_of(call, mark), text
            texts.append(text)
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return b"[" + b",".join(reversed(texts)) + b"]"

    def _text_of(self, call: "Call", mark: "TaskMark") -> bytes | None:
        """Called in a reader's thread."""
        kept = self._kept.get(_key_of(call, mark))
        if kept is None or kept[0] != mark or kept[1] != _numbers_of(call, mark):
            return None
        return kept[2]


def _key_of(call: "Call", mark: "TaskMark") -> tuple[TaskId, bool]:
    return mark.id, may(call.actor, Action.READ_ENVIRONMENT_VALUES, mark.owner)


def _numbers_of(call: "Call", mark: "TaskMark") -> _Numbers:
    """Of the people whom the text names, which are not in the task's record."""
    number = call.parts.auth.number_of
    return number(mark.owner), None if mark.decided_by is None else number(mark.decided_by)
