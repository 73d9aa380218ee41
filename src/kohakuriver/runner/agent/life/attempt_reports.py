"""What is reported to the host about an attempt: each report is journalled before it is sent."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.enums import TaskState
from kohakuriver.models.transitions import ENDED
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.life.attempt_end import End
from kohakuriver.runner.agent.outbox import Outbox
from kohakuriver.runner.agent.records import Reported
from kohakuriver.wire.messages import TaskReport


class AttemptReports:
    def __init__(self, attempt: Attempt, book: DurableBook, outbox: Outbox) -> None:
        self.steering = asyncio.Lock()
        """Held by who pauses or resumes it, and by who reports the status that it has just then."""
        self._attempt = attempt
        self._book = book
        self._outbox = outbox

    async def step(self, status: TaskState, started_at: datetime | None = None, **more: Any) -> None:
        """Report a step that is not the last; `more` are further fields of the report."""
        await self._send(status, started_at=started_at, **more)

    async def end(self, end: End) -> None:
        result = end.result
        await self._send(
            end.status,
            message=end.message,
            exit_code=result.exit_code if result else None,
            started_at=result.started_at if result else None,
            completed_at=result.finished_at if result else datetime.now(UTC),
            stdout_bytes=result.stdout_bytes if result else None,
            stderr_bytes=result.stderr_bytes if result else None,
            lost_to_system=end.lost_to_system,
            never_began=end.never_began,
        )

    async def _send(self, status: TaskState, **fields: Any) -> None:
        report = TaskReport(
            task_id=str(self._attempt.task_id),
            status=status,
            attempt=self._attempt.number,
            revision=self._attempt.revision + 1,
            image_digest=self._attempt.image_digest,
            **fields,
        )
        await self._book.write_surely(Reported(report))
        ended = status in ENDED
        reach(CrashPoint.RUNNER_END_JOURNALLED if ended else CrashPoint.RUNNER_RUNNING_JOURNALLED)
        self._outbox.put(report)
