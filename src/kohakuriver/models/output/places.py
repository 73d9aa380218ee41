"""Where an attempt's output lies below the folder of all output: one rule for host and runner.

Each attempt after the first has a folder of its own, so that an attempt which is void, and may still run on a
node that is cut off, never writes into the output of the one that counts.
"""

from dataclasses import dataclass
from enum import StrEnum

from kohakuriver.models.enums import Stream
from kohakuriver.models.ids import TaskId


class OutputIndex(StrEnum):
    """What lies beside an attempt's streams and is about both: when what was written (`output_times`)."""

    TIMES = "times"


OutputPart = Stream | OutputIndex
TIMES_FILE = "output.times"


def part_named(name: str) -> OutputPart:
    """Raises ValueError for a name that no part has."""
    return OutputIndex(name) if name == OutputIndex.TIMES.value else Stream(name)


def output_folders(task_id: TaskId, attempt: int) -> tuple[str, ...]:
    """Names of the folders that lead to an attempt's output, outermost first."""
    return (str(task_id),) if attempt <= 1 else (str(task_id), f"attempt-{attempt}")


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """One stream of one attempt, or what is about both."""

    task_id: TaskId
    attempt: int
    part: OutputPart

    @property
    def folders(self) -> tuple[str, ...]:
        return output_folders(self.task_id, self.attempt)

    @property
    def file_name(self) -> str:
        return TIMES_FILE if self.part is OutputIndex.TIMES else f"{self.part.value}.log"
