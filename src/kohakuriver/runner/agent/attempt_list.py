"""What a heartbeat says about workloads: those on record, and those that the engine holds beside them."""

from collections.abc import Mapping

from kohakuriver.models.enums import TaskState
from kohakuriver.runner.agent.book import Book, Key
from kohakuriver.runner.engines.contract.engine import FoundWorkload, WorkloadState
from kohakuriver.wire.messages import AttemptState

STATUS_OF = {
    WorkloadState.CREATED: TaskState.ASSIGNING,
    WorkloadState.RUNNING: TaskState.RUNNING,
    WorkloadState.PAUSED: TaskState.PAUSED,
    WorkloadState.EXITED: TaskState.RUNNING,
}
"""Of a workload that nothing is on record of; an ended one counts as running until its end was asked for."""


def attempt_list(
    book: Book, strays: Mapping[Key, FoundWorkload], progress: Mapping[Key, str | None]
) -> list[AttemptState]:
    """Every workload held, once. `progress`: of those that are being started."""
    held = [
        AttemptState(
            task_id=str(attempt.task_id),
            attempt=attempt.number,
            status=attempt.status,
            revision=attempt.revision,
            progress=progress.get(attempt.key),
        )
        for attempt in book
    ]
    beside = [
        AttemptState(
            task_id=str(key[0]), attempt=key[1], status=STATUS_OF[stray.state], revision=0, stray=True
        )
        for key, stray in strays.items()
        if book.get(key) is None
    ]
    return held + beside
