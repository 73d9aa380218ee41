"""What a campaign leaves to be judged: all that was asked, answered, written and left, as plain values.

It is complete in itself: written as JSON, it can be judged again without the cluster.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fault.clients import Outcome, Submission
from fault.schedule import Fault
from fault.workload import TraceLine


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One line of a task's history in the store, in the order of the commits."""

    kind: str
    attempt: int
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class SeenTask:
    """One task as the API shows it at the end, with its output and its history."""

    task_id: str
    name: str
    status: str
    attempt: int
    exit_code: int | None
    error_message: str | None
    assigned_node: str | None
    stdout: str
    stderr: str
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    history: tuple[HistoryEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class CampaignRecord:
    """`leftovers`: what a place holds although no task lives. `complaints`: what the campaign itself met."""

    seed: int
    seconds: float
    cores: int
    schedule: tuple[Fault, ...]
    submissions: tuple[Submission, ...]
    tasks: tuple[SeenTask, ...]
    trace: tuple[TraceLine, ...]
    odd_trace: tuple[str, ...] = ()
    kill_asked: frozenset[str] = frozenset()
    unfinished: tuple[str, ...] = ()
    leftovers: dict[str, list[str]] = field(default_factory=dict)
    busy_cores: dict[str, int] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()
    unhealed: tuple[str, ...] = ()

    def accepted(self) -> dict[str, Submission]:
        """Submissions that were answered 202, by the id that the answer gave."""
        found = (said for said in self.submissions if said.outcome is Outcome.ACCEPTED)
        return {said.task_id: said for said in found if said.task_id is not None}

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = asdict(self) | {"kill_asked": sorted(self.kill_asked)}
        path.write_text(json.dumps(document, indent=1, default=str))
