# shape: each part of the contract stands by itself
"""The part of the engine contract that concerns files in running workloads."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Protocol

from kohakuriver.files.requests import FileRequest
from kohakuriver.files.tree_watch import News
from kohakuriver.models.ids import TaskId


class WorkloadFiles(Protocol):
    """NotFound for a workload that is not there, Conflict for one that neither runs nor is paused."""

    async def perform(self, task_id: TaskId, request: FileRequest) -> Any:
        """Return what the request gives; Unavailable where too many are under way in this workload.

        Once it has begun it ends, also for one who left.
        """

    def watch(self, task_id: TaskId, paths: Sequence[bytes]) -> AsyncGenerator[Sequence[News], None]:
        """Yield what happens at these absolute paths and below them.

        The first time as soon as all of it is watched, with what of it cannot be. Conflict once the workload
        has ended.
        """

    def read_archive(self, task_id: TaskId, path: str) -> AsyncGenerator[bytes, None]:
        """Yield what is at an absolute path as a tar stream whose names begin with the path's last name.

        It ends only when it is whole, else with an error. NotFound if there is nothing at the path.
        """

    async def write_archive(self, task_id: TaskId, path: str, content: AsyncIterator[bytes]) -> None:
        """Unpack a tar stream into an existing folder; links in it are made, and never written through.

        An error of `content` is raised as it is, and what came before it stays.
        """
