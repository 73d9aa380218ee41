"""The part of the engine contract that concerns further processes inside a running workload.

They are children of the engine, not of this process, and end with the workload at the latest. Whoever opens
one closes it.
"""

from dataclasses import dataclass
from typing import Protocol

from kohakuriver.models.enums import Flow
from kohakuriver.models.ids import TaskId


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What to run. `argv` empty: the workload's best interactive shell.

    With a terminal (`rows`, `cols` above 0) all output is one flow. `user` and `working_dir` None: those of
    the workload.
    """

    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    cols: int = 0
    user: str | None = None
    working_dir: str | None = None

    @property
    def has_terminal(self) -> bool:
        return self.rows > 0 and self.cols > 0


class Process(Protocol):
    """One reader and one writer at a time."""

    async def read(self) -> tuple[Flow, bytes] | None:
        """Return what it wrote next, None after its last byte."""

    async def write(self, data: bytes) -> None:
        """Wait until the process took it, or at least the engine; raises Unavailable once it has ended."""

    async def close_input(self) -> None:
        """Half-close: it reads an end of file; its output goes on."""

    async def resize(self, rows: int, cols: int) -> None: ...

    async def exit_status(self) -> int:
        """Known once `read` has returned None; 128 + n for one that was ended by signal n.

        Raises Conflict if it ended because the workload did.
        """

    async def close(self) -> None:
        """Hang up: one that still runs gets SIGHUP, and SIGKILL if it does not go; free to call twice."""


class Processes(Protocol):
    async def open(self, task_id: TaskId, request: ExecRequest) -> Process:
        """Start it; raises NotFound or Conflict for a workload that does not run, EngineFault for a program
        that is not there (with the sentence that a task's command would get)."""

    async def launch(self, task_id: TaskId, request: ExecRequest) -> None:
        """Start it without a terminal and leave it to itself: it reads nothing, and its output goes nowhere.

        It ends by itself, or with the workload. Raises as `open` does.
        """

    async def signal(self, task_id: TaskId, name: str) -> None:
        """Send a signal (`USR1`) to all processes of a workload, once each.

        Raises NotFound or Conflict for a workload that does not run.
        """
