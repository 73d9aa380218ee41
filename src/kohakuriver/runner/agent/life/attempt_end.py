"""How an attempt ended, and what an exit status says of that. Pure."""

from dataclasses import dataclass

from kohakuriver.models.enums import TaskState
from kohakuriver.models.shared_sentences import PROCESS_EXCEEDED_MEMORY, TASK_EXCEEDED_MEMORY
from kohakuriver.runner.engines.contract.engine import ExitResult

_SIGKILLED = 137
"""The status of what SIGKILL ended, and of a shell that ends with the status of such a child."""
_EXIT_MEANINGS = {126: "a command could not be executed", 127: "a command was not found"}
"""What init programs and shells alike say by these; which command it was stands in the task's stderr."""


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; `result` where the engine told.

    `lost_to_system`: through no doing of its command, so that another attempt may fare better. `never_began`:
    by the node's own doing it was never started.
    """

    status: TaskState
    message: str | None
    result: ExitResult | None = None
    lost_to_system: bool = False
    never_began: bool = False


def end_of_command(result: ExitResult) -> End:
    """Of a command that nobody ended; 137 by itself does not prove the OOM killer."""
    mention = PROCESS_EXCEEDED_MEMORY if result.oom_killed else None
    if result.exit_code == 0:
        return End(TaskState.COMPLETED, mention, result)
    if result.oom_killed and result.exit_code == _SIGKILLED:
        return End(TaskState.KILLED_OOM, TASK_EXCEEDED_MEMORY, result)
    sentence = "; ".join(text for text in (_exit_sentence(result), mention) if text)
    return End(TaskState.FAILED, sentence, result, result.lost_to_system)


def end_of_vps(result: ExitResult, *, was_asked: bool) -> End:
    """Of one that nobody killed; `was_asked`: it was told to stop."""
    sentence = f"its first process ended by itself (exit status {result.exit_code})"
    return End(TaskState.STOPPED, None if was_asked else sentence, result)


def _exit_sentence(result: ExitResult) -> str:
    meaning = result.error or _EXIT_MEANINGS.get(result.exit_code)
    return f"exit status {result.exit_code}" + (f": {meaning}" if meaning else "")
