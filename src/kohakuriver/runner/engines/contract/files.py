"""The part of the engine contract that concerns files in running workloads."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from kohakuriver.models.ids import TaskId


class WorkloadFiles(Protocol):
    """NotFound for a workload that is not there, Conflict for one that neither runs nor is paused."""

    async def first_pid(self, task_id: TaskId) -> int:
        """The number, on this machine, of the workload's first process."""

    def read_archive(self, task_id: TaskId, path: str) -> AsyncGenerator[bytes, None]:
        """Yield what is at an absolute path as a tar stream whose names begin with the path's last name.

        It ends only when it is whole, else with an error. NotFound if there is nothing at the path.
        """

    async def write_archive(self, task_id: TaskId, path: str, content: AsyncIterator[bytes]) -> None:
        """Unpack a tar stream into an existing folder; links in it are made, and never written through.

        An error of `content` is raised as it is, and what came before it stays.
        """
