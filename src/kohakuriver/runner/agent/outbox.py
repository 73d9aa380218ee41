"""Reports on their way to the host: sent at once, in order, and again until the host has committed them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.runner.link.pauses import growing_pauses
from kohakuriver.wire.messages import TaskReport

BATCH_SIZE = 500
_log = structlog.get_logger(__name__)


class Outbox:
    """Holds reports that are durable here. `on_committed` is told of the ones that the host has for good."""

    def __init__(
        self,
        send: Callable[[list[TaskReport]], Awaitable[int]],
        on_committed: Callable[[list[TaskReport]], Awaitable[None]],
    ) -> None:
        self._send = send
        self._on_committed = on_committed
        self._waiting: deque[TaskReport] = deque()
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
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                if await self._deliver_some():
                    pauses = growing_pauses()
                else:
                    await self._pause(next(pauses))

    async def _deliver_some(self) -> bool:
        """Send the oldest reports; tell whether the host committed any of them."""
        batch = [self._waiting[index] for index in range(min(len(self._waiting), BATCH_SIZE))]
        self._reachable.clear()
        try:
            committed = await self._send(batch)
        except KohakuRiverError as error:
            _log.warning("reports_not_delivered", waiting=len(self._waiting), error=str(error))
            return False
        reach(CrashPoint.RUNNER_REPORTS_COMMITTED)
        settled = batch[: max(committed, 0)]
        for _ in settled:
            self._waiting.popleft()
        await self._on_committed(settled)
        return bool(settled)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._reachable.wait()
        except TimeoutError:
            return
