"""Files of workloads of the fake machine, which has none: what runs and what does not is told as it is."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from kohakuriver.files.requests import FileRequest
from kohakuriver.files.tree_watch import News
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.fake.machine import FakeMachine

_NONE = "a workload of the fake machine is no process, so it has no files"


class FakeFiles:
    """See `engines.contract.files`."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine

    async def perform(self, task_id: TaskId, request: FileRequest) -> Any:
        self._check(task_id)
        raise Conflict(_NONE)

    async def watch(self, task_id: TaskId, paths: Sequence[bytes]) -> AsyncGenerator[Sequence[News], None]:
        self._check(task_id)
        raise Conflict(_NONE)
        yield ()

    async def read_archive(self, task_id: TaskId, path: str) -> AsyncGenerator[bytes, None]:
        self._check(task_id)
        raise NotFound(f"there is no {path} in task {task_id}")
        yield b""

    async def write_archive(self, task_id: TaskId, path: str, content: AsyncIterator[bytes]) -> None:
        self._check(task_id)
        raise NotFound(f"there is no folder {path} in task {task_id}; make it first")

    def _check(self, task_id: TaskId) -> None:
        workload = self._machine.workloads.get(task_id)
        if workload is None:
            raise NotFound(f"task {task_id} is not on this node")
        if workload.state not in (WorkloadState.RUNNING, WorkloadState.PAUSED):
            raise Conflict(f"task {task_id} does not run, so its files cannot be reached")
