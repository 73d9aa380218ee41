"""Records of tasks as a test wants them, with what belongs to the newest attempt put into that."""

from dataclasses import fields, replace
from typing import Any

from kohakuriver.models.attempts import Attempt
from kohakuriver.models.tasks import Task

_OF_TASK = {field.name for field in fields(Task)}
_OF_ATTEMPT = {field.name for field in fields(Attempt)} - _OF_TASK


def with_facts(task: Task, **facts: Any) -> Task:
    """Return the record with these fields of its own or of its attempt (`number`, `node`, ...)."""
    of_attempt = {name: facts.pop(name) for name in _OF_ATTEMPT & facts.keys()}
    return replace(task, attempt=replace(task.attempt, **of_attempt), **facts)
