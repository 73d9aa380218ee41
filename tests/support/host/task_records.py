"""Records of tasks as a test wants them, with what belongs to the newest attempt put into that."""

from typing import Any

from kohakuriver.models.attempts import Attempt
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task

_OF_TASK = set(Task.__struct_fields__)
_OF_ATTEMPT = set(Attempt.__struct_fields__) - _OF_TASK


def with_facts(task: Task, **facts: Any) -> Task:
    """Return the record with these fields of its own or of its attempt (`number`, `node`, ...)."""
    of_attempt = {name: facts.pop(name) for name in _OF_ATTEMPT & facts.keys()}
    return changed(task, attempt=changed(task.attempt, **of_attempt), **facts)
