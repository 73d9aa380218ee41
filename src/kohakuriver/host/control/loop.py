"""The control loop: takes what waits in its inbox, applies it, places, commits once, then answers.

Rules: nothing outside this loop changes cluster state; an answer is given only after the commit; a commit
that fails changes nothing, its commands are answered with the reason, and the state is read anew.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from kohakuriver.host.control import state as cluster_state
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store.records import Changes
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.scheduling.placement import place

log = structlog.get_logger()

MAX_COMMANDS_PER_TURN = 1000
_RELOAD_PAUSE_SECONDS = 1.0
INBOX_LIMIT = 20_000
"""Commands that may wait; beyond it the host says that it is busy instead of growing without bound."""

Handler = Callable[[Turn], Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LoopRules:
    """What the loop is given from outside: ids, where a task's output goes, who hears of commits."""

    new_id: Callable[[], TaskId]
    output_paths: Callable[[TaskId], tuple[str, str]]
    on_commit: Callable[[Changes], None]


@dataclass(slots=True)
class LoopFigures:
    """Counters for the metrics; seconds are sums."""

    commits: int = 0
    commands: int = 0
    failed_commits: int = 0
    placing_seconds: float = 0.0
    commit_seconds: float = 0.0
    placed: int = 0


class ControlLoop:
    """Owner of the cluster's state. `rules.on_commit` is told of each committed turn, in order."""

    def __init__(
        self,
        store: Store,
        state: ClusterState,
        clock: Clock,
        rules: LoopRules,
    ) -> None:
        self.state = state
        self.figures = LoopFigures()
        self.revision = 0
        self.fault: str | None = None
        self._store = store
        self._clock = clock
        self._rules = rules
        self._inbox: asyncio.Queue[tuple[Handler, asyncio.Future[Any]]] = asyncio.Queue(INBOX_LIMIT)
        self._placed_at = (-1, -1)

    async def call(self, handler: Callable[[Turn], _T]) -> _T:
        """Have a handler run in the next turn; returns its result once that turn is committed."""
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        try:
            self._inbox.put_nowait((handler, future))
        except asyncio.QueueFull as error:
            raise Unavailable("the host has more to do than it can take in; try again in a moment") from error
        return await future

    async def run(self) -> None:
        """Serve for ever; cancelled at shutdown, never in the middle of a commit."""
        while True:
            batch = [await self._inbox.get()]
            while len(batch) < MAX_COMMANDS_PER_TURN and not self._inbox.empty():
                batch.append(self._inbox.get_nowait())
            turn = asyncio.ensure_future(self._turn(batch))
            try:
                await asyncio.shield(turn)
            except asyncio.CancelledError:
                await turn
                raise

    async def _turn(self, batch: list[tuple[Handler, asyncio.Future[Any]]]) -> None:
        turn = Turn(self.state, self._clock.now(), self._clock.monotonic(), self._rules.new_id)
        answers = [(future, self._handle(handler, turn)) for handler, future in batch]
        try:
            self._place(turn)
            if turn.changes:
                await self._commit(turn.changes)
        except (KohakuRiverError, Exception) as error:  # noqa: BLE001 - boundary of one turn
            await self._give_up(batch, error)
            return
        self.figures.commands += len(batch)
        for future, answer in answers:
            _settle(future, answer)

    def _handle(self, handler: Handler, turn: Turn) -> Any:
        try:
            return handler(turn)
        except KohakuRiverError as error:
            return error

    async def _commit(self, changes: Changes) -> None:
        began = time.perf_counter()
        await self._store.write(partial(apply_changes, changes=changes))
        self.figures.commit_seconds += time.perf_counter() - began
        self.figures.commits += 1
        self.revision += 1
        self.fault = None
        self._rules.on_commit(changes)

    async def _give_up(self, batch: list[tuple[Handler, asyncio.Future[Any]]], error: Exception) -> None:
        """Answer everybody with the reason, and forget what was changed in memory."""
        log.error("turn_failed", commands=len(batch), exc_info=error)
        self.figures.failed_commits += 1
        self.fault = str(error)
        reason = (
            error if isinstance(error, KohakuRiverError) else Unavailable("the host met an internal error")
        )
        readable = await self._reload()
        for _, future in batch:
            _settle(future, reason)
        while not readable:
            await asyncio.sleep(_RELOAD_PAUSE_SECONDS)
            readable = await self._reload()

    async def _reload(self) -> bool:
        """Read the state anew; tells whether the store could be read."""
        load = partial(cluster_state.load, cluster_id=self.state.cluster_id, known=self.state.nodes)
        try:
            self.state = await self._store.read(load)
        except Unavailable as error:
            self.fault = str(error)
            log.warning("state_not_readable", reason=str(error))
            return False
        self._placed_at = (-1, -1)
        return True

    def _place(self, turn: Turn) -> None:
        """Give room to what waits, if anything changed that could make a difference."""
        state = turn.state
        marks = (state.table.version, state.queue_version)
        if not len(state.queue) or marks == self._placed_at:
            return
        began = time.perf_counter()
        placements = place(state.queue, state.table, turn.now)
        for placement in placements.placed:
            task = state.tasks[placement.task_id]
            view = state.table.peek(placement.node)
            if view is None or view.obstacle(task.spec.demand) is not None:
                continue
            stdout_path, stderr_path = self._rules.output_paths(task.id)
            placed = turn.step(
                task,
                TaskState.ASSIGNING,
                detail=placement.node,
                attempt=task.attempt + 1,
                revision=0,
                assigned_node=placement.node,
                stdout_path=stdout_path if view.has_shared else None,
                stderr_path=stderr_path if view.has_shared else None,
            )
            turn.order(placed, OrderKind.EXECUTE)
            self.figures.placed += 1
        self._placed_at = (state.table.version, state.queue_version)
        self.figures.placing_seconds += time.perf_counter() - began


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
