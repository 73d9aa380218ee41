"""The list of tasks as JSON, of which only those are encoded anew that have changed."""

from functools import partial

import msgspec

from kohakuriver.host.api.permissions import Call
from kohakuriver.host.api.records import task_record
from kohakuriver.host.auth import Action, may
from kohakuriver.host.control import TaskFilter, TaskMark
from kohakuriver.models.ids import TaskId

_encode = msgspec.json.Encoder().encode


async def task_list_text(call: Call, wanted: TaskFilter) -> bytes:
    """Return the whole list as the caller may see it."""
    kept = call.parts.task_texts
    listed = await call.control.tasks.select_with_kept(wanted, partial(_text_of, call))
    texts: list[bytes] = []
    for mark, found in reversed(listed):  # the oldest first, which are forgotten first
        text = found
        if not isinstance(text, bytes):
            text = _encode(task_record(text, call))
            kept.keep(_key_of(call, mark), _state_of(call, mark), text)
        texts.append(text)
    kept.forget_oldest()
    return b"[" + b",".join(reversed(texts)) + b"]"


def _text_of(call: Call, mark: TaskMark) -> bytes | None:
    """Called in a reader's thread."""
    return call.parts.task_texts.find(_key_of(call, mark), _state_of(call, mark))


def _key_of(call: Call, mark: TaskMark) -> tuple[TaskId, bool]:
    return mark.id, may(call.actor, Action.READ_ENVIRONMENT_VALUES, mark.owner)


def _state_of(call: Call, mark: TaskMark) -> int:
    """Of the task, and of the people whom its text names by numbers that are not in its record."""
    number = call.control.accounts.known.number_of
    return hash((mark, number(mark.owner), None if mark.decided_by is None else number(mark.decided_by)))
