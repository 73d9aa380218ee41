"""The life of one attempt, from wherever it stands to its removal. One coroutine, cancel-safe at every await.

Rules: each step is journalled before it is taken; every step of the engine may be repeated, so a life that
was cut off anywhere is taken up again by running it from the start. Cancelling it leaves the workload alone.
What differs between a task and a VPS is a value, `rules`.
"""

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import KohakuRiverError, NotFound, Unavailable
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.life.attempt_end import End, end_of_command, end_of_vps
from kohakuriver.runner.agent.life.attempt_input import AttemptInput
from kohakuriver.runner.agent.life.attempt_kill import AttemptKill, KilledEarly
from kohakuriver.runner.agent.life.attempt_reports import AttemptReports
from kohakuriver.runner.agent.life.rules import LifeRules
from kohakuriver.runner.agent.life.vps_steps import VpsSteps
from kohakuriver.runner.agent.outbox import Outbox
from kohakuriver.runner.agent.records import Removed, Starting
from kohakuriver.runner.agent.start_row import StartRow
from kohakuriver.runner.engines.contract.engine import Engine, ExitResult, FoundWorkload, WorkloadState
from kohakuriver.runner.engines.contract.faults import (
    EngineFull,
    LostByEngine,
    NodeFault,
    NoDiskSpace,
    RegistryUnavailable,
)
from kohakuriver.runner.engines.contract.spec import WorkloadSpec

ENGINE_PATIENCE_SECONDS = 60.0
"""For how long the making of a workload is tried again while the engine does not answer."""
LOST_BY_NODE = (Unavailable, EngineFull, LostByEngine, RegistryUnavailable)
"""What keeps a workload from being started without any doing of its own."""
_STATUS_OF = {WorkloadState.RUNNING: TaskState.RUNNING, WorkloadState.PAUSED: TaskState.PAUSED}
_log = structlog.get_logger(__name__)


class AttemptLife:
    """Drives one attempt of the book. `kill` and `stop` may be called at any time."""

    def __init__(
        self,
        attempt: Attempt,
        engine: Engine,
        book: DurableBook,
        outbox: Outbox,
        starts: StartRow,
        rules: LifeRules,
    ) -> None:
        self.attempt = attempt
        self.progress: str | None = None
        """How far its image is on its way to this node, while it is."""
        self.over = asyncio.Event()
        self.input = AttemptInput(attempt, engine, book)
        self.reports = AttemptReports(attempt, book, outbox)
        self._engine = engine
        self._book = book
        self._starts = starts
        self._rules = rules
        self._input_fault: str | None = None
        self._kill = AttemptKill(attempt, engine, rules.kill_grace_seconds)
        self._vps = VpsSteps(attempt, engine, book, self.reports, self._kill, rules.keeping)
        self._log = _log.bind(task_id=str(attempt.task_id), attempt=attempt.number)

    def kill(self) -> None:
        """Have the workload ended; one that is still being made is given up."""
        self._kill.ask()

    def stop(self) -> None:
        """Have it ended in order, if its rules know that."""
        self._vps.ask_to_stop()

    async def run(self, spec: WorkloadSpec, found: FoundWorkload | None) -> None:
        """Live to the end. `found`: what the engine held when the runner looked; None for nothing."""
        if not self.attempt.ended:
            try:
                end = await self._live(spec, found)
            except Exception as error:  # noqa: BLE001 - boundary of one attempt; others must not suffer
                self._log.exception("attempt_broke_runner")
                sentence = f"the runner failed ({type(error).__name__}); see its log"
                end = self._failed(sentence, lost_to_system=True, never_began=not self.attempt.starting)
            finally:
                await self.input.abandon()
            reach(CrashPoint.RUNNER_END_SEEN)
            self._log.info("attempt_ended", status=end.status.value, reason=end.message)
            await self.reports.end(end)
        reach(CrashPoint.RUNNER_REMOVING)
        await self._remove()

    async def _live(self, spec: WorkloadSpec, found: FoundWorkload | None) -> End:
        if self.attempt.starting and found is None:
            return self._without_result(self._rules.vanished, lost_to_system=True)
        try:
            if not self.attempt.starting:
                await self._prepare(spec)
            is_new = found is None or found.state is WorkloadState.CREATED
            started_at = await self._start(opens_input=is_new)
            reach(CrashPoint.RUNNER_COMMAND_STARTED)
            if self._rules.is_made_ready:
                await self._vps.make_ready(spec, found, started_at)
            else:
                await self._tell_of_start(found, started_at)
        except KilledEarly:
            missing = "was ready" if self._rules.is_made_ready else "started"
            return End(TaskState.KILLED, f"killed before it {missing}")
        except KohakuRiverError as error:
            return self._not_begun(error)
        return await self._until_over(spec)

    async def _tell_of_start(self, found: FoundWorkload | None, started_at: datetime) -> None:
        if self.attempt.last is None:
            self._log.info("attempt_started")
            await self.reports.step(TaskState.RUNNING, started_at)
        status = _STATUS_OF.get(found.state) if found is not None else None
        if status is not None and status is not self.attempt.status:
            await self.reports.step(status, started_at)

    def _not_begun(self, error: KohakuRiverError) -> End:
        """The end of what could not be started; by the node's own doing it may well start elsewhere.

        What did not answer before the start was noted down is the node's, since nothing of the task ran.
        """
        is_nodes_doing = isinstance(error, (NodeFault, EngineFull))
        if isinstance(error, Unavailable) and not self.attempt.starting:
            is_nodes_doing = True
        lost = isinstance(error, LOST_BY_NODE)
        return self._failed(str(error), lost_to_system=lost, never_began=is_nodes_doing)

    def _failed(self, sentence: str, *, lost_to_system: bool, never_began: bool) -> End:
        if never_began:
            self._starts.failed(self.attempt.task_id, sentence)
        return End(TaskState.FAILED, sentence, lost_to_system=lost_to_system, never_began=never_began)

    async def _prepare(self, spec: WorkloadSpec) -> None:
        """Make the workload, and journal that it is about to start; given up at once when it is killed."""
        async with self._kill.cuts_off():
            try:
                digest = await self._create(spec)
            finally:
                self.progress = None
            reach(CrashPoint.RUNNER_WORKLOAD_CREATED)
            await self._book.write_surely(Starting(*self.attempt.key, digest))
            reach(CrashPoint.RUNNER_STARTING_JOURNALLED)

    async def _create(self, spec: WorkloadSpec) -> str | None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + ENGINE_PATIENCE_SECONDS
        for seconds in growing_pauses():
            try:
                return await self._engine.create(spec, self._on_progress)
            except Unavailable as error:
                # For room it waits as long as it takes: the fault keeps new work away meanwhile.
                if clock() > deadline and not isinstance(error, NoDiskSpace):
                    raise
                self._log.warning("attempt_create_delayed", error=str(error))
                await asyncio.sleep(seconds)
        raise AssertionError("pauses never end")

    def _on_progress(self, text: str) -> None:
        self.progress = text
        self._log.debug("image_progress", progress=text)

    async def _start(self, *, opens_input: bool = False) -> datetime:
        """Start the command. While the engine does not answer it may be running, so there is no giving up."""
        pauses = growing_pauses()
        while True:
            try:
                if opens_input:
                    await self.input.open()
                return await self._engine.start(*self.attempt.key)
            except Unavailable as error:
                self._log.warning("attempt_start_unanswered", error=str(error))
                await asyncio.sleep(next(pauses))
            except NotFound as error:
                self._log.warning("attempt_vanished", error=str(error))
                raise LostByEngine("the workload vanished from its engine before it was started") from error

    async def _until_over(self, spec: WorkloadSpec) -> End:
        """Wait for an end that counts; by its rules, what fell or could not be kept is started again."""
        pauses = growing_pauses()
        while True:
            end = await self._wait(spec)
            reason = await self._reason_to_go_on(end)
            if reason is None:
                return end
            try:
                await self._vps.start_again(spec, reason)
            except KilledEarly:
                return End(TaskState.KILLED, "killed on request")
            except KohakuRiverError as error:
                self._log.warning("session_not_started_again", error=str(error))
                if not isinstance(error, Unavailable):
                    return End(TaskState.FAILED, str(error), lost_to_system=True)
            await asyncio.sleep(next(pauses))

    async def _reason_to_go_on(self, end: End) -> str | None:
        if not self._rules.is_started_again or end.result is None or self._kill.is_asked:
            return None
        return await self._vps.reason_to_go_on(end.result)

    async def _wait(self, spec: WorkloadSpec) -> End:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in self._beside(spec)]
            try:
                return await self._end(spec)
            finally:
                for task in beside:
                    task.cancel()

    def _beside(self, spec: WorkloadSpec) -> list[Coroutine[Any, Any, None]]:
        """What is done while it runs."""
        works = [self._kill.end_when_asked(), self._feed()]
        if self._rules.is_made_ready:
            works.append(self._vps.become_ready(spec))
        if self._rules.stops_in_order:
            works.append(self._vps.stop_when_asked(spec))
        return works

    async def _feed(self) -> None:
        """Give it its input; what has not all of it does not go on."""
        self._input_fault = await self.input.give()
        if self._input_fault is not None:
            self._log.warning("attempt_input_cut_off", reason=self._input_fault)
            await self._kill.end_workload()

    async def _end(self, spec: WorkloadSpec) -> End:
        pauses = growing_pauses()
        while True:
            try:
                result = await self._engine.wait(spec)
                self._starts.succeeded()
                return self._judge(result)
            except Unavailable as error:
                self._log.warning("attempt_wait_interrupted", error=str(error))
                await asyncio.sleep(next(pauses))
            except NotFound:
                sentence = "the workload vanished from its engine before it ended"
                return self._without_result(sentence, lost_to_system=True)
            except KohakuRiverError as error:
                if isinstance(error, NodeFault):
                    self._starts.failed(self.attempt.task_id, str(error))
                return self._without_result(str(error), lost_to_system=False)

    def _without_result(self, sentence: str, *, lost_to_system: bool) -> End:
        if self._kill.is_asked:
            return End(TaskState.KILLED, sentence)
        return End(TaskState.FAILED, sentence, lost_to_system=lost_to_system)

    def _judge(self, result: ExitResult) -> End:
        """A kill that was asked for explains any end."""
        if self._kill.is_asked:
            return End(TaskState.KILLED, "killed on request", result)
        if self._rules.stops_in_order:
            return end_of_vps(result, was_asked=self._vps.is_asked_to_stop)
        if self._input_fault is not None:
            return End(TaskState.FAILED, self._input_fault, result, lost_to_system=True)
        return end_of_command(result)

    async def _remove(self) -> None:
        for seconds in growing_pauses():
            try:
                await self._engine.remove(*self.attempt.key)
            except Exception as error:  # noqa: BLE001 - boundary: what is left would stay until a restart
                expected = isinstance(error, KohakuRiverError)
                self._log.warning("attempt_remove_failed", error=str(error), exc_info=not expected)
                await asyncio.sleep(seconds)
            else:
                break
        reach(CrashPoint.RUNNER_WORKLOAD_REMOVED)
        await self._book.write_surely(Removed(*self.attempt.key))
