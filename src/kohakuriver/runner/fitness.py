"""Whether tasks can run on this node: proved as soon as there is an engine, and again from time to time.

The node is open meanwhile, and closed by the first proof that fails: a proof takes about as long as a runner
takes to become known to its host, and tasks that a node cannot start go back to the queue. After a failure
it is tried again, with pauses that grow.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.start_row import StartRow

PROVE_AGAIN_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0
ENGINE_PAUSE_SECONDS = 0.5
_log = structlog.get_logger(__name__)


class Fitness:
    """Run it once with `run`. `prove` raises what keeps tasks from running, Unavailable without an engine.

    `on_change` is called whenever `faults` has changed. `starts` hears of tasks by who runs them.
    """

    def __init__(self, prove: Callable[[], Awaitable[None]], on_change: Callable[[], None]) -> None:
        self.starts = StartRow(self._row_changed)
        self._prove = prove
        self._on_change = on_change
        self._fault: str | None = None
        self._taken_out = asyncio.Event()

    def faults(self) -> list[str]:
        return [fault for fault in (self._fault, self.starts.fault) if fault]

    async def run(self) -> None:
        """Go on until cancelled."""
        pauses = growing_pauses(FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        while True:
            was_taken_out = self.starts.fault is not None
            try:
                await self._prove()
            except Unavailable:
                await asyncio.sleep(ENGINE_PAUSE_SECONDS)  # the agent says that there is no engine
                continue
            except KohakuRiverError as error:
                self._set(f"tasks cannot run here: {error}")
                await asyncio.sleep(next(pauses))
                continue
            pauses = growing_pauses(FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            self._set(None)
            if was_taken_out:
                self.starts.try_again()
            await self._until_due()

    async def _until_due(self) -> None:
        """Wait for the next proof: it comes early where starts of tasks failed in a row."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROVE_AGAIN_SECONDS):
                await self._taken_out.wait()
        if self.starts.fault is not None:
            await asyncio.sleep(self.starts.pause_seconds)
        self._taken_out.clear()

    def _row_changed(self) -> None:
        if self.starts.fault is not None:
            self._taken_out.set()
        self._on_change()

    def _set(self, fault: str | None) -> None:
        if fault == self._fault:
            return
        if fault is not None:
            _log.error("node_unfit", fault=fault)
        else:
            _log.info("node_fit_again")
        self._fault = fault
        self._on_change()
