"""The life of one attempt, from wherever it stands to its removal. One coroutine, cancel-safe at every await.

Rules: each step is journalled before it is taken; every step of the engine may be repeated, so a life that
was cut off anywhere is taken up again by running it from the start. Cancelling it leaves the workload alone.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.shared_sentences import PROCESS_EXCEEDED_MEMORY, TASK_EXCEEDED_MEMORY
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS
from kohakuriver.models.transitions import ENDED
from kohakuriver.pauses import growing_pauses
from kohakuriver.runner.agent.attempt_input import AttemptInput
from kohakuriver.runner.agent.book import Attempt
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.outbox import Outbox
from kohakuriver.runner.agent.records import Removed, Reported, Starting
from kohakuriver.runner.agent.start_row import StartRow
from kohakuriver.runner.engines.contract.engine import Engine, ExitResult, FoundWorkload, WorkloadState
from kohakuriver.runner.engines.contract.faults import (
    EngineFull,
    LostByEngine,
    NodeFault,
    NoRoom,
    RegistryAway,
)
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.wire.messages import TaskReport

ENGINE_PATIENCE_SECONDS = 60.0
"""For how long the making of a workload is tried again while the engine does not answer."""
_SIGKILLED = 137
"""The status of what SIGKILL ended, and of a shell that ends with the status of such a child."""
LOST_BY_NODE = (Unavailable, EngineFull, LostByEngine, RegistryAway)
"""What keeps a workload from being started without any doing of its own."""
STATUS_OF = {WorkloadState.RUNNING: TaskState.RUNNING, WorkloadState.PAUSED: TaskState.PAUSED}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; `result` where the engine told.

    `lost_to_system`: through no doing of its command, so that another attempt may fare better. `never_began`:
    by the node's own doing it was never started.
    """

    status: TaskState
    message: str | None
    result: ExitResult | None = None
    lost_to_system: bool = False
    never_began: bool = False


class KilledEarly(Exception):
    """The attempt was killed before its command was started."""


class AttemptLife:
    """Drives one attempt of the book. `kill` may be called at any time."""

    def __init__(
        self, attempt: Attempt, engine: Engine, book: DurableBook, outbox: Outbox, starts: StartRow
    ) -> None:
        self.attempt = attempt
        self.steering = asyncio.Lock()
        self.progress: str | None = None
        """How far its image is on its way to this node, while it is."""
        self.over = asyncio.Event()
        self._engine = engine
        self._book = book
        self._outbox = outbox
        self.input = AttemptInput(attempt, engine, book)
        self._input_fault: str | None = None
        self._starts = starts
        self._killed = asyncio.Event()
        self._preparing: asyncio.Timeout | None = None
        self._stopping: asyncio.Timeout | None = None
        self._stopping_grace = 0
        self._log = _log.bind(task_id=str(attempt.task_id), attempt=attempt.number)
        if attempt.kill_asked:
            self._killed.set()

    def kill(self) -> None:
        """Have the workload ended; one that is still being made is given up."""
        now = asyncio.get_running_loop().time()
        if self._killed.is_set():
            if self._stopping is not None and self._grace_of_kill() < self._stopping_grace:
                self._stopping.reschedule(now)
            return
        self._killed.set()
        if self._preparing is not None:
            self._preparing.reschedule(now)

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
            await self._report_end(end)
        reach(CrashPoint.RUNNER_REMOVING)
        await self._remove()

    async def report(self, status: TaskState, started_at: datetime | None = None, **more: Any) -> None:
        """Tell the host of a step that is not the last; `more` are further fields of the report."""
        await self._send(
            TaskReport(
                task_id=str(self.attempt.task_id),
                status=status,
                attempt=self.attempt.number,
                revision=self.attempt.revision + 1,
                started_at=started_at,
                image_digest=self.attempt.image_digest,
                **more,
            )
        )

    async def _live(self, spec: WorkloadSpec, found: FoundWorkload | None) -> End:
        if self.attempt.starting and found is None:
            sentence = "the workload vanished from its engine while its runner was away"
            return self._without_result(sentence, lost_to_system=True)
        try:
            if not self.attempt.starting:
                await self._prepare(spec)
            is_new = found is None or found.state is WorkloadState.CREATED
            started_at = await self._start(opens_input=is_new)
            reach(CrashPoint.RUNNER_COMMAND_STARTED)
        except KilledEarly:
            return End(TaskState.KILLED, "killed before it started")
        except KohakuRiverError as error:
            return self._not_begun(error)
        if self.attempt.last is None:
            self._log.info("attempt_started")
            await self.report(TaskState.RUNNING, started_at)
        status = STATUS_OF.get(found.state) if found is not None else None
        if status is not None and status is not self.attempt.status:
            await self.report(status, started_at)
        return await self._wait(spec)

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
        async with self._given_up_when_killed():
            try:
                digest = await self._create(spec)
            finally:
                self.progress = None
            reach(CrashPoint.RUNNER_WORKLOAD_CREATED)
            await self._book.write_surely(Starting(*self.attempt.key, digest))
            reach(CrashPoint.RUNNER_STARTING_JOURNALLED)

    @asynccontextmanager
    async def _given_up_when_killed(self) -> AsyncIterator[None]:
        """Cut off what takes time before the command counts as running; raises KilledEarly then."""
        if self._killed.is_set():
            raise KilledEarly
        scope = self._preparing = asyncio.timeout(None)
        try:
            async with scope:
                yield
        except TimeoutError as error:
            if self._killed.is_set():
                raise KilledEarly from None
            raise NodeFault("the engine took too long to make the workload") from error
        finally:
            self._preparing = None

    async def _create(self, spec: WorkloadSpec) -> str | None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + ENGINE_PATIENCE_SECONDS
        for seconds in growing_pauses():
            try:
                return await self._engine.create(spec, self._on_progress)
            except Unavailable as error:
                # For room it waits as long as it takes: the fault keeps new work away meanwhile.
                if clock() > deadline and not isinstance(error, NoRoom):
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

    async def _wait(self, spec: WorkloadSpec) -> End:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work) for work in (self._stop_when_killed(), self._feed())]
            try:
                return await self._end(spec)
            finally:
                for task in beside:
                    task.cancel()

    async def _feed(self) -> None:
        """Give it its input; what has not all of it does not go on."""
        self._input_fault = await self.input.give()
        if self._input_fault is not None:
            self._log.warning("attempt_input_cut_off", reason=self._input_fault)
            await self._until_stopped()

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
        if self._killed.is_set():
            return End(TaskState.KILLED, sentence)
        return End(TaskState.FAILED, sentence, lost_to_system=lost_to_system)

    def _judge(self, result: ExitResult) -> End:
        """A kill that was asked for explains any end; 137 alone does not prove the kernel's OOM killer."""
        if self._killed.is_set():
            return End(TaskState.KILLED, "killed on request", result)
        if self._input_fault is not None:
            return End(TaskState.FAILED, self._input_fault, result, lost_to_system=True)
        mention = PROCESS_EXCEEDED_MEMORY if result.oom_killed else None
        if result.exit_code == 0:
            return End(TaskState.COMPLETED, mention, result)
        if result.oom_killed and result.exit_code == _SIGKILLED:
            return End(TaskState.KILLED_OOM, TASK_EXCEEDED_MEMORY, result)
        sentence = "; ".join(text for text in (_exit_sentence(result), mention) if text)
        return End(TaskState.FAILED, sentence, result, result.lost_to_system)

    async def _stop_when_killed(self) -> None:
        await self._killed.wait()
        await self._until_stopped()

    async def _until_stopped(self) -> None:
        for seconds in growing_pauses():
            try:
                await self._stop()
            except KohakuRiverError as error:
                self._log.warning("attempt_stop_failed", error=str(error))
            # The end is what counts, and `_wait` cancels this then; until it comes, try again.
            await asyncio.sleep(max(seconds, 1.0))

    async def _stop(self) -> None:
        """End the workload; begun anew when a further kill leaves it less time."""
        while True:
            self._stopping_grace = self._grace_of_kill()
            scope = self._stopping = asyncio.timeout(None)
            try:
                async with scope:
                    return await self._engine.stop(*self.attempt.key, self._stopping_grace)
            except TimeoutError:
                if not scope.expired():
                    raise
            finally:
                self._stopping = None

    def _grace_of_kill(self) -> int:
        """The one that the kill came with, else its own."""
        spec = self.attempt.spec
        own = DEFAULT_GRACE_SECONDS if spec is None else spec.grace_seconds
        return own if self.attempt.kill_grace is None else self.attempt.kill_grace

    async def _report_end(self, end: End) -> None:
        result = end.result
        self._log.info("attempt_ended", status=end.status.value, reason=end.message)
        await self._send(
            TaskReport(
                task_id=str(self.attempt.task_id),
                status=end.status,
                attempt=self.attempt.number,
                revision=self.attempt.revision + 1,
                message=end.message,
                exit_code=result.exit_code if result else None,
                started_at=result.started_at if result else None,
                completed_at=result.finished_at if result else datetime.now(UTC),
                stdout_bytes=result.stdout_bytes if result else None,
                stderr_bytes=result.stderr_bytes if result else None,
                lost_to_system=end.lost_to_system,
                never_began=end.never_began,
                image_digest=self.attempt.image_digest,
            )
        )

    async def _send(self, report: TaskReport) -> None:
        await self._book.write_surely(Reported(report))
        ended = report.status in ENDED
        reach(CrashPoint.RUNNER_END_JOURNALLED if ended else CrashPoint.RUNNER_RUNNING_JOURNALLED)
        self._outbox.put(report)

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


_EXIT_MEANINGS = {126: "a command could not be executed", 127: "a command was not found"}
"""What init programs and shells alike say by these; which command it was stands in the task's stderr."""


def _exit_sentence(result: ExitResult) -> str:
    meaning = result.error or _EXIT_MEANINGS.get(result.exit_code)
    return f"exit status {result.exit_code}" + (f": {meaning}" if meaning else "")
