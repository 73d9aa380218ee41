"""The life of one run of a persistent session: like any attempt's, but it is made ready before it counts as
running, it can be stopped in order, and a container that ended unasked is no end of it.

Rules: a session is removed from the engine only after what it held was kept (if the settings keep anything),
or on a kill. What could not be kept goes on running, and its owner is told (`notice`). One that was ready
once is not given up because it cannot be made ready again: it holds work.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.enums import SshKeyMode, TaskState
from kohakuriver.models.errors import Conflict, KohakuRiverError, Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.attempt_life import STATUS_OF, AttemptLife, End, KilledEarly
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.outbox import Outbox
from kohakuriver.runner.agent.records import StopGivenUp
from kohakuriver.runner.agent.start_row import StartRow
from kohakuriver.runner.engines.contract.engine import Engine, ExitResult, FoundWorkload, WorkloadState
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import KeptSnapshots, SessionSetup

SSH_PORT = 22
_KILL_GRACE_SECONDS = 5
_AT_STOP = "made when the session was stopped"
_AT_END = "made when the session ended by itself"


@dataclass(frozen=True, slots=True)
class KeepingRules:
    """What the settings say of snapshots: whether a stop makes one, and how many are kept (0: none)."""

    at_stop: bool = True
    keep: int = 3

    @property
    def keeps_at_stop(self) -> bool:
        return self.at_stop and self.keep > 0


class SessionLife(AttemptLife):
    """`stop` may be called at any time, like `kill`, which it gives way to."""

    def __init__(
        self,
        attempt: Attempt,
        engine: Engine,
        book: DurableBook,
        outbox: Outbox,
        starts: StartRow,
        rules: KeepingRules,
    ) -> None:
        super().__init__(attempt, engine, book, outbox, starts)
        self._rules = rules
        self._stop_asked = asyncio.Event()
        self._is_kept = False
        self._is_ready = True
        if attempt.stop_asked:
            self._stop_asked.set()

    def stop(self) -> None:
        """Have the session ended in order."""
        self._stop_asked.set()

    async def _live(self, spec: WorkloadSpec, found: FoundWorkload | None) -> End:
        if spec.session is None:
            raise TypeError(f"task {spec.task_id} is no session")
        if self.attempt.starting and found is None:
            sentence = "the session's container vanished while its runner was away; start the session again"
            return self._without_result(sentence, lost_to_system=True)
        try:
            if not self.attempt.starting:
                await self._prepare(spec)
            started_at = await self._start()
            reach(CrashPoint.RUNNER_COMMAND_STARTED)
            await self._make_ready(spec.session, found, started_at)
        except KilledEarly:
            return End(TaskState.KILLED, "killed before it was ready")
        except KohakuRiverError as error:
            return self._not_begun(error)
        return await self._wait(spec)

    async def _make_ready(
        self, setup: SessionSetup, found: FoundWorkload | None, started_at: datetime | None
    ) -> None:
        """Set it up, and tell of it. One that is frozen is ready since before, and one that ended is seen to
        by who waits for its end."""
        state = found.state if found is not None else WorkloadState.RUNNING
        if state is WorkloadState.EXITED and self.attempt.last is not None:
            return
        status = STATUS_OF.get(state, TaskState.RUNNING)
        if state is not WorkloadState.PAUSED:
            try:
                return await self._set_up(setup, started_at)
            except KohakuRiverError as error:
                if self.attempt.last is None:
                    raise
                self._log.warning("session_not_made_ready", error=str(error))
        if self.attempt.status is not status:
            await self.report(status, started_at)

    async def _set_up(
        self, setup: SessionSetup, started_at: datetime | None, notice: str | None = None
    ) -> None:
        self._is_ready = False
        async with self._given_up_when_killed():
            address = await self._engine.sessions.set_up(*self.attempt.key, setup)
        self._is_ready = True
        has_ssh = setup.ssh_key_mode is not SshKeyMode.DISABLED
        if self.attempt.status is TaskState.RUNNING and notice is None:
            return
        self._log.info("session_ready", address=address)
        await self.report(
            TaskState.RUNNING,
            started_at,
            address=address,
            ssh_port=SSH_PORT if has_ssh else None,
            notice=notice,
        )

    async def _wait(self, spec: WorkloadSpec) -> End:
        """Wait for an end that counts; what fell or could not be kept is started again."""
        pauses = growing_pauses()
        while True:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(work)
                    for work in (
                        self._stop_when_killed(),
                        self._stop_when_asked(spec),
                        self._become_ready(spec.session),
                    )
                ]
                try:
                    end = await self._end(spec)
                finally:
                    for task in beside:
                        task.cancel()
            notice = await self._goes_on(end)
            if notice is None:
                return end
            try:
                await self._begin_again(spec, notice)
            except KilledEarly:
                return End(TaskState.KILLED, "killed on request")
            except KohakuRiverError as error:
                self._log.warning("session_not_started_again", error=str(error))
                if not isinstance(error, Unavailable):
                    return End(TaskState.FAILED, str(error), lost_to_system=True)
            await asyncio.sleep(next(pauses))

    async def _become_ready(self, setup: SessionSetup | None) -> None:
        """Make ready what could not be before; it runs meanwhile."""
        pauses = growing_pauses()
        while setup is not None and not self._is_ready and not self._stop_asked.is_set():
            await asyncio.sleep(next(pauses))
            try:
                await self._engine.sessions.set_up(*self.attempt.key, setup)
            except (Unavailable, Conflict) as error:
                self._log.warning("session_not_made_ready", error=str(error))
                continue
            except KohakuRiverError as error:
                sentence = f"it runs, and could not be made ready again: {error}"
                async with self.steering:
                    await self.report(self.attempt.status or TaskState.RUNNING, notice=sentence)
                return
            self._is_ready = True

    async def _begin_again(self, spec: WorkloadSpec, notice: str) -> None:
        self._log.warning("session_begins_again", reason=notice)
        async with self._given_up_when_killed():
            await self._engine.sessions.start_again(*self.attempt.key)
        if spec.session is not None:
            await self._set_up(spec.session, None, notice)

    async def _goes_on(self, end: End) -> str | None:
        """Say why the session is to be started again; None if it has ended."""
        result = end.result
        if result is None or self._killed.is_set() or self._is_kept:
            return None
        if result.lost_to_system:
            return f"it was started again: {result.error or 'its engine or node was restarted under it'}"
        if not self._rules.keeps_at_stop:
            return None
        try:
            await self._keep(_AT_END)
        except KohakuRiverError as error:
            return f"it ended by itself and was started again, because no snapshot could be made: {error}"
        return None

    def _grace_of_kill(self) -> int:
        """A kill gives the session up; who wants it ended in order has it stopped."""
        return _KILL_GRACE_SECONDS if self.attempt.kill_grace is None else self.attempt.kill_grace

    def _judge(self, result: ExitResult) -> End:
        if self._killed.is_set():
            return End(TaskState.KILLED, "killed on request", result)
        if self._stop_asked.is_set():
            return End(TaskState.STOPPED, None, result)
        sentence = f"its first process ended by itself (exit status {result.exit_code})"
        return End(TaskState.STOPPED, sentence, result)

    async def _stop_when_asked(self, spec: WorkloadSpec) -> None:
        while True:
            await self._stop_asked.wait()
            try:
                if self._rules.keeps_at_stop and not self._is_kept:
                    # First, so that the snapshot has what its programs write when they end.
                    await self._engine.sessions.end_processes(*self.attempt.key, spec.grace_seconds)
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
        kept = KeptSnapshots(self._rules.keep, self.attempt.spare_snapshot)
        await self._engine.sessions.take_snapshot(*self.attempt.key, message, kept)
        self._is_kept = True
        reach(CrashPoint.RUNNER_SESSION_KEPT)

    async def _give_up_stopping(self, spec: WorkloadSpec, reason: str) -> None:
        """It goes on, and can be reached; what ran in it has ended."""
        self._log.error("session_not_stopped", reason=reason)
        self._stop_asked.clear()
        await self._book.write_surely(StopGivenUp(*self.attempt.key))
        sentence = f"it was not stopped, because no snapshot could be made: {reason}"
        try:
            if spec.session is not None:
                await self._engine.sessions.set_up(*self.attempt.key, spec.session)
        except KohakuRiverError as error:
            sentence += f"; it runs, and could not be made ready again: {error}"
        # One that was paused was thawed for its programs to end.
        await self.report(TaskState.RUNNING, notice=sentence, stop_given_up=True)

    async def _end_in_order(self, spec: WorkloadSpec) -> None:
        for seconds in growing_pauses():
            try:
                await self._engine.stop(*self.attempt.key, spec.grace_seconds)
            except KohakuRiverError as error:
                self._log.warning("attempt_stop_failed", error=str(error))
            # `_wait` cancels this when the end is seen; until it comes, try again.
            await asyncio.sleep(max(seconds, 1.0))
