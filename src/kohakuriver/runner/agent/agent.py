"""Orders in, workloads driven, reports out. The heart of the runner; it knows neither HTTP nor Docker.

Rules it keeps, whatever repeats and whenever the process dies: an attempt's command is started at most once;
each attempt that was accepted gets exactly one final report; a workload that is not in the journal is shown
to the host and ended only on its word.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import InvalidInput, KohakuRiverError, NotFound, Unavailable
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.runner.agent import intake
from kohakuriver.runner.agent.agent_parts import AgentParts
from kohakuriver.runner.agent.attempt_list import attempt_list
from kohakuriver.runner.agent.book import Attempt, Key
from kohakuriver.runner.agent.durable_book import DurableBook
from kohakuriver.runner.agent.intake import Verdict
from kohakuriver.runner.agent.journal import JournalFault
from kohakuriver.runner.agent.life.attempt_input import AttemptInput
from kohakuriver.runner.agent.life.attempt_life import AttemptLife
from kohakuriver.runner.agent.life.rules import rules_for
from kohakuriver.runner.agent.order_spec import of_this_version, order_to_spec
from kohakuriver.runner.agent.outbox import Outbox
from kohakuriver.runner.agent.records import Committed, Reported, Steered, Withdrawn
from kohakuriver.runner.agent.strays import Strays
from kohakuriver.runner.engines.contract.engine import FoundWorkload, OrphanWorkload
from kohakuriver.runner.engines.contract.spec import DOCKER
from kohakuriver.runner.engines.engines import Engines
from kohakuriver.wire.messages import AttemptState, Order, OrderAnswer, TaskReport

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)


class Agent:
    """Run it with `run`; the other methods may be called while that runs."""

    def __init__(self, parts: AgentParts, book: DurableBook) -> None:
        self._parts = parts
        self._book = book
        self._outbox = Outbox(parts.send_reports, self._committed)
        self.engines = Engines(parts.engines, self._engine_name)
        self._strays = Strays(self.engines)
        self._group: asyncio.TaskGroup | None = None
        self._lives: dict[Key, AttemptLife] = {}
        self._intake = asyncio.Lock()
        self._orders_seen = 0

    async def run(self) -> None:
        """Recover what is there, then drive workloads until cancelled; cancelling leaves them running."""
        for attempt in self._book.book:
            for report in attempt.unsent:
                self._outbox.put(report)
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                delivering = self._spawn(self._outbox.run())
                self._spawn(self._book.mend())
                for name in self.engines.names:
                    self._spawn(self._take_up(name))
                await delivering
            finally:
                self._group = None

    async def take_orders(self, orders: list[Order]) -> list[OrderAnswer]:
        """Obey or refuse each order; what is accepted is durable. A caller that leaves changes nothing.

        Raises Unavailable if they cannot be made durable now: the host keeps them and gives them again.
        """
        answers = await asyncio.shield(self._spawn(self._take_orders(orders)))
        if isinstance(answers, KohakuRiverError):
            raise answers
        for order, answer in zip(orders, answers, strict=True):
            _log.debug(
                "order_answered",
                kind=order.kind.value,
                task_id=str(order.task_id),
                attempt=order.attempt,
                accepted=answer.accepted,
            )
        return answers

    def attempts(self) -> tuple[list[AttemptState], int]:
        """Every workload held, and the highest order number taken in before this list was made."""
        progress = {key: life.progress for key, life in self._lives.items()}
        return attempt_list(self._book.book, self._strays.found, progress), self._orders_seen

    def orphans(self) -> list[OrphanWorkload]:
        """What the engines hold of our cluster under other nodes' names."""
        return [left for engine in self.engines.by_name().values() for left in engine.orphans()]

    async def take_over(self, nodes: list[str]) -> None:
        """Have what stands under these nodes' names as ours; the next list shows it."""
        if not nodes:
            return
        for name, engine in self.engines.by_name().items():
            try:
                for found in await engine.take_over(nodes):
                    if self._book.book.get((found.task_id, found.attempt)) is None:
                        self._strays.add(found, name)
            except KohakuRiverError as error:
                _log.warning("not_taken_over", engine=name, nodes=nodes, error=str(error))

    def current_attempt(self, task_id: TaskId) -> Attempt | None:
        """The newest attempt of a task that has not ended here."""
        attempt = self._book.book.get((task_id, self._book.book.newest_number(task_id)))
        return attempt if attempt is not None and not attempt.ended else None

    def input_of(self, task_id: TaskId) -> AttemptInput:
        """Of the attempt that is under way; raises NotFound if there is none."""
        if (life := self._lives.get((task_id, self._book.book.newest_number(task_id)))) is None:
            raise NotFound(f"this node does not run task {task_id}")
        return life.input

    @property
    def knows_its_engines(self) -> bool:
        """Whether it has looked what all of them hold; before that there may be more than it tells."""
        return self.engines.all_are_open

    async def end_attempts(self, unwanted: list[AttemptState]) -> None:
        """End workloads that the host does not want, by their exact attempt."""
        for entry in unwanted:
            key = (parse_task_id(entry.task_id), entry.attempt)
            attempt = self._book.book.get(key)
            if attempt is not None and not attempt.ended:
                _log.warning("attempt_unwanted", task_id=str(key[0]), attempt=key[1])
                order = intake.kill_of_unwanted(key)
                # What cannot be journalled now is ended all the same, and the host will say it again.
                with contextlib.suppress(JournalFault):
                    await self.take_orders([order])
            elif key in self._strays:
                self._spawn(self._strays.end(key))

    def faults(self) -> list[str]:
        """Sentences about what does not work now."""
        needed = {attempt.spec.engine for attempt in self._book.book if attempt.spec is not None}
        missing = [
            f"work that is on record here needs the {name} engine, which this runner does not have"
            for name in sorted(needed.difference(self.engines.names))
        ]
        return self.engines.faults() + missing + ([self._book.fault] if self._book.fault else [])

    def host_is_back(self) -> None:
        """Reports that wait for a pause to end are sent now."""
        self._outbox.host_is_back()

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
        """Run something beside the rest, owned by `run`; raises Unavailable while that does not run."""
        try:
            if self._group is not None:
                return self._group.create_task(work)
        except RuntimeError:
            _log.debug("agent_is_ending")
        work.close()
        raise Unavailable("the runner is starting or ending; try again")

    def _engine_name(self, task_id: TaskId) -> str:
        """Of the engine that a task has: of its newest attempt here, or of what is here of it beside that."""
        attempt = self._book.book.get((task_id, self._book.book.newest_number(task_id)))
        if attempt is not None and attempt.spec is not None:
            return attempt.spec.engine
        return self._strays.engine_of(task_id) or DOCKER

    async def _take_up(self, name: str) -> None:
        """Once an engine answers, go on with its attempts, and sort out what it holds beside them."""
        engine, listed = await self.engines.prepare(name)
        found = {(each.task_id, each.attempt): each for each in listed}
        async with self._intake:
            self.engines.admit(name, engine)
            for key, workload in found.items():
                if self._book.book.get(key) is None:
                    self._add_stray(workload, name)
            for attempt in self._book.book:
                if attempt.spec is not None and attempt.spec.engine == name:
                    self._begin(attempt, found.get(attempt.key))

    def _add_stray(self, workload: FoundWorkload, engine: str) -> None:
        key = workload.task_id, workload.attempt
        self._strays.add(workload, engine)
        done = key[1] <= self._book.book.newest_number(key[0])
        _log.warning("stray_workload", task_id=str(key[0]), attempt=key[1], done_before=done)
        if done:
            self._spawn(self._strays.end(key))

    def _begin(self, attempt: Attempt, found: FoundWorkload | None = None) -> None:
        if attempt.spec is None or (attempt.ended and attempt.removed):
            return
        engine = self.engines.named(attempt.spec.engine)
        if engine is None:
            return  # `_take_up` begins it as soon as it is open
        rules = rules_for(attempt.spec, engine.abilities, self._parts.keeping)
        life = self._lives[attempt.key] = AttemptLife(
            attempt, engine, self._book, self._outbox, self._parts.starts, rules
        )
        self._spawn(self._drive(life, found))

    async def _drive(self, life: AttemptLife, found: FoundWorkload | None) -> None:
        attempt = life.attempt
        try:
            if attempt.spec is not None:
                await self._clear_the_way(attempt.key)
                await life.run(of_this_version(attempt.spec, self._parts.settings), found)
        except Exception:  # noqa: BLE001 - boundary of one attempt; a restart takes it up again
            _log.exception("attempt_left_behind", task_id=str(attempt.task_id), attempt=attempt.number)
        finally:
            life.over.set()
            self._lives.pop(attempt.key, None)

    async def _clear_the_way(self, key: Key) -> None:
        """Wait until older attempts of the task, and strays of it, are gone from the engine."""
        for older in self._book.book.older_than(key):
            if older.key in self._lives:
                await self._lives[older.key].over.wait()
        for stray in self._strays.of_task(key[0]):
            if stray == key:
                self._strays.drop(stray)
            else:
                await self._strays.end(stray)

    async def _take_orders(self, orders: list[Order]) -> list[OrderAnswer] | KohakuRiverError:
        try:
            async with self._intake:
                verdicts = await self._decide(orders)
            refusals: list[str | None] = []
            for order, verdict in zip(orders, verdicts, strict=True):
                steering = order.kind in (OrderKind.PAUSE, OrderKind.RESUME)
                refusals.append(await self._steer(order) if steering else verdict.refusal)
        except JournalFault as fault:
            return fault  # only for the caller: raised here, it would end all that the agent does
        except Exception as error:  # noqa: BLE001 - boundary of one request
            _log.exception("orders_failed", orders=len(orders))
            return Unavailable(f"the runner failed at an order ({type(error).__name__}); see its log")
        return [
            OrderAnswer(order_id=order.order_id, accepted=refusal is None, detail=refusal)
            for order, refusal in zip(orders, refusals, strict=True)
        ]

    async def _decide(self, orders: list[Order]) -> list[Verdict]:
        """Judge orders to begin or end something in their order, with one write for all of them, then act."""
        verdicts = []
        for order in orders:
            verdicts.append(self._judge(order))
            for record in verdicts[-1].records:
                self._book.book.apply(record)
        records = [record for verdict in verdicts for record in verdict.records]
        try:
            if records:
                reach(CrashPoint.RUNNER_ORDERS_JUDGED)
                await self._book.persist(*records)
                reach(CrashPoint.RUNNER_ORDERS_JOURNALLED)
        except JournalFault as error:
            await self._withdraw(verdicts, str(error))
            raise
        self._orders_seen = max(self._orders_seen, *(order.order_id for order in orders), 0)
        for verdict in verdicts:
            self._act(verdict)
        return verdicts

    def _judge(self, order: Order) -> Verdict:
        try:
            return self._verdict(order)
        except Exception as error:  # noqa: BLE001 - boundary of one order
            _log.exception("order_not_understood", task_id=str(order.task_id), kind=order.kind.value)
            return Verdict(refusal=f"the runner failed at this order ({type(error).__name__}); see its log")

    def _verdict(self, order: Order) -> Verdict:
        if order.kind is OrderKind.EXECUTE:
            facts, settings = self._parts.facts(), self._parts.settings
            return intake.judge_execute(
                order, self._book.book, lambda order: order_to_spec(order, facts, settings)
            )
        if order.kind is OrderKind.KILL:
            return intake.judge_kill(order, self._book.book, datetime.now(UTC))
        if order.kind is OrderKind.STOP:
            return intake.judge_stop(order, self._book.book)
        return Verdict()

    async def _withdraw(self, verdicts: list[Verdict], reason: str) -> None:
        """Nothing begins that is not durable; what is to end is ended all the same."""
        _log.error("orders_not_taken", orders=len(verdicts), reason=reason)
        begun = [Withdrawn(*verdict.begins) for verdict in verdicts if verdict.begins is not None]
        try:
            await self._book.write(*begun)
        except JournalFault:
            _log.debug("withdrawal_waits", attempts=len(begun))
        for verdict in verdicts:
            self._act(replace(verdict, begins=None))

    def _act(self, verdict: Verdict) -> None:
        for key in verdict.ends:
            if key in self._lives:
                self._lives[key].kill()
            elif key in self._strays:
                self._spawn(self._strays.end(key))
        stopped = self._lives.get(verdict.stops) if verdict.stops else None
        if stopped is not None:
            stopped.stop()
        attempt = self._book.book.get(verdict.begins) if verdict.begins else None
        if attempt is not None:
            self._begin(attempt)
        for record in verdict.records:
            if isinstance(record, Reported):
                self._outbox.put(record.report)

    async def _steer(self, order: Order) -> str | None:
        """Pause or resume; returns why not. The engine is asked here, so the answer tells what happened."""
        try:
            key = (parse_task_id(order.task_id), order.attempt)
        except InvalidInput as error:
            return str(error)
        attempt, life = self._book.book.get(key), self._lives.get(key)
        refusal = intake.refusal_to_steer(order, attempt)
        if refusal is not None or attempt is None or life is None:
            return refusal or "the engine of this task does not answer; try again"
        wanted = TaskState.PAUSED if order.kind is OrderKind.PAUSE else TaskState.RUNNING
        async with life.reports.steering:
            if 0 < order.order_id <= attempt.steered_by or attempt.status is wanted:
                return None
            try:
                engine = self.engines.of(key[0])
                await (engine.pause if order.kind is OrderKind.PAUSE else engine.resume)(*key)
            except KohakuRiverError as error:
                return str(error)
            if not attempt.ended:
                await self._book.write_surely(Steered(*key, order.order_id))
            # It may have ended during that write, and nothing may be reported after an end.
            if not attempt.ended:
                await life.reports.step(wanted)
        return None

    async def _committed(self, reports: list[TaskReport]) -> None:
        records = [
            Committed(parse_task_id(report.task_id), report.attempt, report.revision) for report in reports
        ]
        try:
            await self._book.write(*records)
        except JournalFault as error:
            # The reports are sent again after a restart, which changes nothing at the host.
            _log.error("journal_not_written", error=str(error))
