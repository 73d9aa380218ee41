"""The part of the engine contract that concerns the standard input of a workload.

It is opened after the workload was made and before its command is started, by who then writes all of it. If
that one is gone before the end, what the command reads is cut off, and nobody can go on with it.
"""

from typing import Protocol

from kohakuriver.models.ids import TaskId


class InputPipe(Protocol):
    """One writer at a time. Whoever opened it closes it."""

    async def write(self, data: bytes) -> bool:
        """Wait until the engine took it. False: nobody reads it, for the command has closed it, or ended.

        Raises Unavailable where the engine lost it; then nobody knows how much the command will read.
        """

    async def end(self) -> None:
        """The command reads an end of file after what was written, also if its writer dies now."""

    async def settle(self) -> None:
        """After `end`: wait until the engine has handed on all of it, or the command has ended.

        Raises like `write`.
        """

    async def close(self) -> None:
        """Let go of it; without `end` before it is cut off. Free to call twice."""


class Inputs(Protocol):
    async def open(self, task_id: TaskId, attempt: int) -> InputPipe:
        """Raises NotFound, EngineFault or Unavailable."""
