"""Where an attempt's output lies below the folder of all output: one rule for host and runner.

Each attempt after the first has a folder of its own, so that an attempt which is void, and may still run on a
node that is cut off, never writes into the output of the one that counts.
"""

from dataclasses import dataclass

from kohakuriver.models.enums import Stream
from kohakuriver.models.ids import TaskId


def output_folders(task_id: TaskId, attempt: int) -> tuple[str, ...]:
    """Names of the folders that lead to an attempt's output, outermost first."""
    return (str(task_id),) if attempt <= 1 else (str(task_id), f"attempt-{attempt}")


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """One stream of one attempt."""

    task_id: TaskId
    attempt: int
    stream: Stream

    @property
    def folders(self) -> tuple[str, ...]:
        return output_folders(self.task_id, self.attempt)

    @property
    def file_name(self) -> str:
        return f"{self.stream.value}.log"
