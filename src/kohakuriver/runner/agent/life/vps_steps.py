"""The steps that only the life of a VPS has: it is made ready, started again, kept and stopped in order.

Rules: a VPS is removed from the engine only after what it held was kept (if the settings keep anything),
or on a kill. What could not be kept goes on running, and its owner is told (`notice`). One that was ready
once is not given up because it cannot be made ready again: it holds work.
"""

import asyncio
from datetime import datetime

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.enums import SshKeyMode, TaskState
from kohakuriver.models.errors import Conflict, KohakuRiverError, Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.life.attempt_kill import AttemptKill
from kohakuriver.runner.agent.life.attempt_reports import AttemptReports
from kohakuriver.runner.agent.life.rules import KeepingRules
from kohakuriver.runner.agent.records import StopGivenUp
from kohakuriver.runner.engines.contract.engine import Engine, ExitResult, FoundWorkload, WorkloadState
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots, VpsSetup

SSH_PORT = 22
_AT_STOP = "made when the VPS was stopped"
_AT_END = "made when the VPS ended by itself"
_log = structlog.get_logger(__name__)


class VpsSteps:
    """`ask_to_stop` may be called at any time; a kill goes before it."""

    def __init__(
        self,
        attempt: Attempt,
        engine: Engine,
        book: DurableBook,
        reports: AttemptReports,
        kill: AttemptKill,
        keeping: KeepingRules,
    ) -> None:
        self._attempt = attempt
        self._engine = engine
        self._book = book
        self._reports = reports
        self._kill = kill
        self._keeping = keeping
        self._stop_asked = asyncio.Event()
        self._is_kept = False
        self._is_ready = True
        self._log = _log.bind(task_id=str(attempt.task_id), attempt=attempt.number)
        if attempt.stop_asked:
            self._stop_asked.set()

    @property
    def is_asked_to_stop(self) -> bool:
        return self._stop_asked.is_set()

    def ask_to_stop(self) -> None:
        """Have the VPS ended in order."""
        self._stop_asked.set()

    async def make_ready(
        self, spec: WorkloadSpec, found: FoundWorkload | None, started_at: datetime | None
    ) -> None:
        """Set it up, and report it. One that is frozen is ready since before, and one that ended is seen to
        by who waits for its end."""
        state = found.state if found is not None else WorkloadState.RUNNING
        if state is WorkloadState.EXITED and self._attempt.last is not None:
            return
        status = TaskState.PAUSED if state is WorkloadState.PAUSED else TaskState.RUNNING
        if status is TaskState.RUNNING:
            try:
                return await self._set_up(setup_of(spec), started_at)
            except KohakuRiverError as error:
                if self._attempt.last is None:
                    raise
                self._log.warning("session_not_made_ready", error=str(error))
        if self._attempt.status is not status:
            await self._reports.step(status, started_at)

    async def _set_up(self, setup: VpsSetup, started_at: datetime | None, notice: str | None = None) -> None:
        self._is_ready = False
        async with self._kill.cuts_off():
            address = await self._engine.vps.set_up(*self._attempt.key, setup)
        self._is_ready = True
        has_ssh = setup.ssh_key_mode is not SshKeyMode.DISABLED
        if self._attempt.status is TaskState.RUNNING and notice is None:
            return
        self._log.info("session_ready", address=address)
        await self._reports.step(
            TaskState.RUNNING,
            started_at,
            address=address,
            ssh_port=SSH_PORT if has_ssh else None,
            notice=notice,
        )

    async def become_ready(self, spec: WorkloadSpec) -> None:
        """Make ready what could not be before; it runs meanwhile."""
        pauses = growing_pauses()
        while not self._is_ready and not self.is_asked_to_stop:
            await asyncio.sleep(next(pauses))
            try:
                await self._engine.vps.set_up(*self._attempt.key, setup_of(spec))
            except (Unavailable, Conflict) as error:
                self._log.warning("session_not_made_ready", error=str(error))
                continue
            except KohakuRiverError as error:
                sentence = f"it runs, and could not be made ready again: {error}"
                async with self._reports.steering:
                    await self._reports.step(self._attempt.status, notice=sentence)
                return
            self._is_ready = True

    async def start_again(self, spec: WorkloadSpec, notice: str) -> None:
        self._log.warning("session_begins_again", reason=notice)
        async with self._kill.cuts_off():
            await self._engine.vps.start_again(*self._attempt.key)
        await self._set_up(setup_of(spec), None, notice)

    async def reason_to_go_on(self, result: ExitResult) -> str | None:
        """Say why it is to be started again; None if it has ended."""
        if self._is_kept:
            return None
        if result.lost_to_system:
            return f"it was started again: {result.error or 'its engine or node was restarted under it'}"
        if not self._keeping.keeps_at_stop:
            return None
        try:
            await self._keep(_AT_END)
        except KohakuRiverError as error:
            return f"it ended by itself and was started again, because no snapshot could be made: {error}"
        return None

    async def stop_when_asked(self, spec: WorkloadSpec) -> None:
        """Until cancelled, which is when its end is seen."""
        while True:
            await self._stop_asked.wait()
            try:
                if self._keeping.keeps_at_stop and not self._is_kept:
                    # First, so that the snapshot has what its programs write when they end.
                    await self._engine.vps.end_processes(*self._attempt.key, spec.grace_seconds)
                    await self._keep(_AT_STOP)
            except Unavailable as error:
                self._log.warning("session_stop_waits", error=str(error))
                await asyncio.sleep(1.0)
                continue
            except KohakuRiverError as error:
                await self._give_up_stopping(spec, str(error))
                continue
            await self._end_in_order(spec)

    async def _keep(self, message: str) -> None:
        kept = KeptSnapshots(self._keeping.keep, self._attempt.protected_snapshot)
        await self._engine.vps.take_snapshot(*self._attempt.key, message, kept)
        self._is_kept = True
        reach(CrashPoint.RUNNER_VPS_KEPT)

    async def _give_up_stopping(self, spec: WorkloadSpec, reason: str) -> None:
        """It goes on, and can be reached; what ran in it has ended."""
        self._log.error("session_not_stopped", reason=reason)
        self._stop_asked.clear()
        await self._book.write_surely(StopGivenUp(*self._attempt.key))
        sentence = f"it was not stopped, because no snapshot could be made: {reason}"
        try:
            await self._engine.vps.set_up(*self._attempt.key, setup_of(spec))
        except KohakuRiverError as error:
            sentence += f"; it runs, and could not be made ready again: {error}"
        # One that was paused was thawed for its programs to end.
        await self._reports.step(TaskState.RUNNING, notice=sentence, stop_given_up=True)

    async def _end_in_order(self, spec: WorkloadSpec) -> None:
        for seconds in growing_pauses():
            try:
                await self._engine.stop(*self._attempt.key, spec.grace_seconds)
            except KohakuRiverError as error:
                self._log.warning("attempt_stop_failed", error=str(error))
            await asyncio.sleep(max(seconds, 1.0))


def setup_of(spec: WorkloadSpec) -> VpsSetup:
    if spec.session is None:
        raise TypeError(f"task {spec.task_id} is no VPS")
    return spec.session
