"""Reports on their way to the host: sent at once, in order, and again until the host has committed them.

A request holds so many bytes at most. One that the host refuses is divided, until the report that it does not
take is by itself; that one is left for later, so that it never holds up the others.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import HostRefused, KohakuRiverError
from kohakuriver.pauses import growing_pauses
from kohakuriver.wire.messages import BATCH_BYTES, TaskReport, encode

BATCH_SIZE = 500
REFUSED_PAUSE_SECONDS = 60.0
"""After which a report that was refused is tried again: the host may be of another version by then."""
_REFUSALS = (400, 413, 422)
_log = structlog.get_logger(__name__)


class Outbox:
    """Holds reports that are durable here. `on_committed` hears of the ones that the host has for good."""

    def __init__(
        self,
        send: Callable[[list[TaskReport]], Awaitable[int]],
        on_committed: Callable[[list[TaskReport]], Awaitable[None]],
    ) -> None:
        self._send = send
        self._on_committed = on_committed
        self._waiting: deque[TaskReport] = deque()
        self._refused: deque[tuple[float, TaskReport]] = deque()
        self._most = BATCH_SIZE
        self._wake = asyncio.Event()
        self._reachable = asyncio.Event()

    def put(self, report: TaskReport) -> None:
        self._waiting.append(report)
        self._wake.set()

    def host_is_back(self) -> None:
        """End a pause early: the host has just answered something else."""
        self._reachable.set()

    async def run(self) -> None:
        """Deliver for ever."""
        pauses = growing_pauses()
        while True:
            await self._until_woken()
            while self._waiting:
                if await self._deliver_some():
                    pauses = growing_pauses()
                else:
                    await self._pause(next(pauses))

    async def _until_woken(self) -> None:
        """Return when there is something to send; what was refused long ago is, too."""
        now = asyncio.get_running_loop().time
        due = self._refused[0][0] - now() if self._refused else None
        try:
            async with asyncio.timeout(due):
                await self._wake.wait()
        except TimeoutError:
            while self._refused and self._refused[0][0] <= now():
                self._waiting.append(self._refused.popleft()[1])
        self._wake.clear()

    def _next_batch(self) -> list[TaskReport]:
        batch: list[TaskReport] = []
        size = 0
        for report in islice(self._waiting, self._most):
            size += len(encode(report)) + 1
            if batch and size > BATCH_BYTES:
                break
            batch.append(report)
        return batch

    async def _deliver_some(self) -> bool:
        """Send the oldest reports; tell whether the next ones can be sent now."""
        batch = self._next_batch()
        self._reachable.clear()
        try:
            committed = await self._send(batch)
        except HostRefused as error:
            return self._divide(batch, error)
        except KohakuRiverError as error:
            _log.warning("reports_not_delivered", waiting=len(self._waiting), error=str(error))
            return False
        reach(CrashPoint.RUNNER_REPORTS_COMMITTED)
        settled = batch[: max(committed, 0)]
        for _ in settled:
            self._waiting.popleft()
        self._most = min(self._most * 2, BATCH_SIZE)
        await self._on_committed(settled)
        return bool(settled)

    def _divide(self, batch: list[TaskReport], error: HostRefused) -> bool:
        """Send less next time, or leave the one report aside that the host does not take."""
        if error.status not in _REFUSALS:
            _log.warning("reports_not_delivered", waiting=len(self._waiting), error=str(error))
            return False
        if len(batch) > 1:
            self._most = len(batch) // 2
            return True
        report = self._waiting.popleft()
        until = asyncio.get_running_loop().time() + REFUSED_PAUSE_SECONDS
        self._refused.append((until, report))
        _log.error(
            "report_refused",
            task_id=str(report.task_id),
            attempt=report.attempt,
            state=report.status.value,
            error=str(error),
        )
        return True

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._reachable.wait()
        except TimeoutError:
            return
