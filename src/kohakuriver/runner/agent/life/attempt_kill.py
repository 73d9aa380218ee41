"""The kill of an attempt: what is being made is given up, what runs is ended in the time that it is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.engines.contract.engine import Engine
from kohakuriver.runner.engines.contract.faults import NodeFault

_log = structlog.get_logger(__name__)


class KilledEarly(Exception):
    """The attempt was killed before its command was started."""


class AttemptKill:
    """`ask` may be called at any time, and again when the attempt is left less time."""

    def __init__(self, attempt: Attempt, engine: Engine, own_grace_seconds: int | None) -> None:
        """`own_grace_seconds`: of a kill that says none; None: the workload's."""
        self._attempt = attempt
        self._engine = engine
        self._own_grace = own_grace_seconds
        self._asked = asyncio.Event()
        self._preparing: asyncio.Timeout | None = None
        self._stopping: asyncio.Timeout | None = None
        self._stopping_grace = 0
        self._log = _log.bind(task_id=str(attempt.task_id), attempt=attempt.number)
        if attempt.kill_asked:
            self._asked.set()

    @property
    def is_asked(self) -> bool:
        return self._asked.is_set()

    def ask(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.is_asked:
            if self._stopping is not None and self._grace() < self._stopping_grace:
                self._stopping.reschedule(now)
            return
        self._asked.set()
        if self._preparing is not None:
            self._preparing.reschedule(now)

    @asynccontextmanager
    async def cuts_off(self) -> AsyncIterator[None]:
        """What takes time before the command counts as running; raises KilledEarly then."""
        if self.is_asked:
            raise KilledEarly
        scope = self._preparing = asyncio.timeout(None)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if self.is_asked:
                raise KilledEarly from None
            raise NodeFault("the engine took too long to make the workload") from error
        finally:
            self._preparing = None

    async def end_when_asked(self) -> None:
        await self._asked.wait()
        await self.end_workload()

    async def end_workload(self) -> None:
        """Until cancelled: the end is what counts, and until it is seen, try again."""
        for seconds in growing_pauses():
            try:
                await self._stop()
            except KohakuRiverError as error:
                self._log.warning("attempt_stop_failed", error=str(error))
            await asyncio.sleep(max(seconds, 1.0))

    async def _stop(self) -> None:
        """End the workload; begun anew when a further kill leaves it less time."""
        while True:
            self._stopping_grace = self._grace()
            scope = self._stopping = asyncio.timeout(None)
            try:
                async with scope:
                    return await self._engine.stop(*self._attempt.key, self._stopping_grace)
            except TimeoutError:
                if not scope.expired():
                    raise
            finally:
                self._stopping = None

    def _grace(self) -> int:
        """The one that the kill came with, else its own."""
        if self._attempt.kill_grace is not None:
            return self._attempt.kill_grace
        if self._own_grace is not None:
            return self._own_grace
        spec = self._attempt.spec
        return DEFAULT_GRACE_SECONDS if spec is None else spec.grace_seconds
