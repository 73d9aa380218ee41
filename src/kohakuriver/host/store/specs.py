"""Where a task's spec is kept: a small one in the task's row, what a batch shares and what is large once.

The column `spec_id` of `tasks` names the row of `task_specs` that has everything but target and GPUs; those
two stand in the task's own row, which is small then. A row without it has its whole spec, as all rows of
older hosts do.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec

from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.spec.size import cut_for_list
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.tasks import Task, TaskSpec

LARGE_BYTES = 2048
"""More than this is kept apart: a task's row is written as a whole with each of its steps."""

_OWN = ("target", "required_gpus")
_shared_part = attrgetter(*(name for name in TaskSpec.__struct_fields__ if name not in _OWN))
_encoder = msgspec.json.Encoder()
_spec_decoder = msgspec.json.Decoder(TaskSpec)


@dataclass(frozen=True, slots=True)
class _OwnPart:
    """What tasks of one batch differ in."""

    target: Target | None = None
    required_gpus: tuple[int, ...] = ()


_own_decoder = msgspec.json.Decoder(_OwnPart)


@dataclass(frozen=True, slots=True)
class KeptSpec:
    """The columns `spec` and `spec_id` of a task's row."""

    spec: bytes
    spec_id: int | None = None


def keep_specs(tasks: Iterable[Task]) -> tuple[list[KeptSpec], dict[int, bytes]]:
    """Say for each new task what its row holds, and which rows of `task_specs` come with them."""
    kept: list[KeptSpec] = []
    apart: dict[int, bytes] = {}
    shared: dict[TaskId, object] = {}
    for task in tasks:
        part = None if task.batch_id is None else _shared_part(task.spec)
        if task.batch_id is not None and shared.setdefault(task.batch_id, part) == part:
            if task.batch_id not in apart:
                apart[task.batch_id] = _without_own(task.spec)
            kept.append(KeptSpec(_own_of(task.spec), task.batch_id))
            continue
        whole = _encoder.encode(task.spec)
        if len(whole) <= LARGE_BYTES:
            kept.append(KeptSpec(whole))
        else:
            apart[task.id] = _without_own(task.spec)
            kept.append(KeptSpec(_own_of(task.spec), task.id))
    return kept, apart


def _without_own(spec: TaskSpec) -> bytes:
    return _encoder.encode(changed(spec, target=None, required_gpus=()))


def _own_of(spec: TaskSpec) -> bytes:
    return _encoder.encode(_OwnPart(spec.target, spec.required_gpus))


class SpecReader:
    """Makes specs out of rows, given the rows of `task_specs` that they name.

    With `share_equal`, tasks that ask for the same share one record of it: a sweep of 100,000 is many tasks,
    but few specs. With `cut` large ones are made as small as lists show them, one after the other.
    """

    def __init__(self, apart: Iterable[Any], *, share_equal: bool = False, cut: bool = False) -> None:
        self._cut = cut
        self._small: dict[int, bytes] = {}
        self._large: dict[int, TaskSpec] = {}
        for row in apart:
            if len(row.spec) <= LARGE_BYTES:
                self._small[row.id] = row.spec[:-1] + b","
            else:
                self._large[row.id] = self._listed(_spec_decoder.decode(row.spec))
        self._known: dict[tuple[int | None, bytes], TaskSpec] | None = {} if share_equal else None

    def spec_of(self, row: Any) -> TaskSpec:
        if self._known is None:
            return self._read(row.spec_id, row.spec)
        key = row.spec_id, row.spec
        spec = self._known.get(key)
        if spec is None:
            spec = self._known[key] = self._read(*key)
        return spec

    def _read(self, spec_id: int | None, text: bytes) -> TaskSpec:
        if spec_id is None:
            # Those of older hosts may be large here too.
            spec = _spec_decoder.decode(text)
            return self._listed(spec) if len(text) > LARGE_BYTES else spec
        if (begun := self._small.get(spec_id)) is not None:
            # One object of both parts, of which the last word counts: twice as fast as changing a record.
            return _spec_decoder.decode(begun + text[1:])
        own = _own_decoder.decode(text)
        return changed(self._large[spec_id], target=own.target, required_gpus=own.required_gpus)

    def _listed(self, spec: TaskSpec) -> TaskSpec:
        return cut_for_list(spec) if self._cut else spec
