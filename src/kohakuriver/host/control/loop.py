"""The control loop: takes what waits in its inbox, applies it, places, commits once, then answers.

Rules: nothing outside this loop changes cluster state; an answer is given only after the commit; a commit
that fails changes nothing, and the state is read anew. Where the disk is to blame, all its commands are
answered with the reason; else one of them is, which is found and answered, and the others run again. So
a handler may run more than once, and keeps to the turn that it is given. While the store cannot be written,
only commands run that change nothing in it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import structlog

from kohakuriver.crash_points import CrashPoint, reach
from kohakuriver.host.control import state as cluster_state
from kohakuriver.host.control.allowance import Allowance
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.control.store_watch import StoreWatch
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.durations import Durations
from kohakuriver.host.store import queries
from kohakuriver.host.store.records import Changes, StoredEvent, TaskEvent
from kohakuriver.host.store.store import DiskFault, NewWorkRefused, Store
from kohakuriver.host.store.writes import apply_changes
from kohakuriver.models.errors import KohakuRiverError, Unavailable
from kohakuriver.models.ids import TaskId
from kohakuriver.models.transitions import ForbiddenTransition
from kohakuriver.pauses import Pause
from kohakuriver.scheduling.placement import place

log = structlog.get_logger()

MAX_COMMANDS_PER_TURN = 1000
_RELOAD_PAUSE_SECONDS = 1.0
_TOLD_EVENTS = 20
"""So many lines of a task's history are told with a step that the table forbids."""
INBOX_LIMIT = 20_000
"""Commands that may wait; beyond it the host says that it is busy instead of growing without bound."""

Handler = Callable[[Turn], Any]
_T = TypeVar("_T")


class InternalFault(Unavailable):
    """A command met what nobody foresaw: a defect of the host, or data that should never have come so far."""


class _HandlerFailed(Exception):
    """Which command of a turn it was; the error itself is its cause."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


class _PlacingFailed(Exception):
    """The error itself is its cause."""


@dataclass(frozen=True, slots=True)
class _Command:
    """`needs_store` False: the handler keeps to memory while `Turn.read_only`, and so may run even then."""

    handler: Handler
    future: asyncio.Future[Any]
    needs_store: bool


@dataclass(frozen=True, slots=True)
class LoopRules:
    """What the loop is given from outside: ids, where a task's output goes, who hears of commits, of turns
    (which may have changed what is not in the store), and that the state was read anew."""

    new_id: Callable[[], TaskId]
    output_paths: Callable[[TaskId, int], tuple[str, str]]
    on_commit: Callable[[Changes], None]
    on_turn: Callable[[], None]
    on_reload: Callable[[], None]


@dataclass(slots=True)
class LoopFigures:
    """Counters for the metrics; seconds are sums."""

    turns: Durations = field(default_factory=Durations)
    writes: Durations = field(default_factory=Durations)

    commits: int = 0
    commands: int = 0
    failed_commits: int = 0
    failed_commands: int = 0
    placing_seconds: float = 0.0
    placed: int = 0
    heartbeats: int = 0
    reports: int = 0


class ControlLoop:
    """Owner of the cluster's state. `rules.on_commit` hears of each committed turn, in order.

    `listening_since`: monotonic time from which on commands are heard; later than the start after a time in
    which the store could not be read.
    """

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
        self.listening_since = clock.monotonic()
        self.watch = StoreWatch(store)
        self.clock = clock
        self._store = store
        self._rules = rules
        self._inbox: asyncio.Queue[_Command] = asyncio.Queue(INBOX_LIMIT)
        self._placed_at = (-1, -1)
        self._placing_pause = Pause()
        self._traces = Allowance(most=5, seconds=60)
        self._place_again_at: datetime | None = None

    async def call(self, handler: Callable[[Turn], _T], *, needs_store: bool = True) -> _T:
        """Have a handler run in the next turn; returns its result once that turn is committed.

        With `needs_store` it is refused while the store cannot be written.
        """
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        try:
            self._inbox.put_nowait(_Command(handler, future, needs_store))
        except asyncio.QueueFull as error:
            raise Unavailable("the host has more to do than it can take in; try again in a moment") from error
        return await future

    @property
    def waiting_commands(self) -> int:
        return self._inbox.qsize()

    async def turn_before_run(self, handler: Callable[[Turn], _T]) -> _T:
        """Have a handler run and its changes committed while nothing else does; raises what goes wrong."""
        turn = self._new_turn()
        answer = handler(turn)
        if turn.changes:
            await self._commit(turn)
        return answer

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

    async def _turn(self, batch: list[_Command]) -> None:
        """Run commands to their end: those that are left when one has failed, again and without it."""
        waiting = deque([(batch, True)])
        while waiting:
            waiting.extendleft(reversed(await self._try(*waiting.popleft())))

    async def _try(self, batch: list[_Command], places: bool) -> list[tuple[list[_Command], bool]]:
        """Make one turn of the commands; returns what is to be tried next, nothing if all went well."""
        began = time.perf_counter()
        turn = self._new_turn()
        turn.read_only = self.watch.fault is not None
        try:
            answers = [self._handle(batch, place, turn) for place in range(len(batch))]
            placed = places and not self.watch.holds_new_work and self._place(turn)
            if turn.changes:
                await self._commit(turn)
        except (DiskFault, NewWorkRefused) as error:
            await self._give_up(batch, turn, error)
            return []
        except (KohakuRiverError, Exception) as error:  # noqa: BLE001 - boundary of one turn
            return await self._sort_out(batch, turn, error, places)
        if placed:
            self._placing_pause = Pause()
        self.figures.commands += len(batch)
        for command, answer in zip(batch, answers, strict=True):
            _settle(command.future, answer)
        reach(CrashPoint.HOST_TURN_ANSWERED)
        self._tell(self._rules.on_turn)
        self.figures.turns.add(time.perf_counter() - began)
        return []

    def _new_turn(self) -> Turn:
        rules, clock = self._rules, self.clock
        return Turn(self.state, clock.now(), clock.monotonic(), rules.new_id, rules.output_paths)

    def _handle(self, batch: list[_Command], place: int, turn: Turn) -> Any:
        command = batch[place]
        try:
            if command.needs_store and self.watch.fault:
                return Unavailable(self.watch.fault)
            return command.handler(turn)
        except KohakuRiverError as error:
            return error
        except Exception as error:
            raise _HandlerFailed(place) from error

    async def _commit(self, turn: Turn) -> None:
        changes = turn.changes
        reach(CrashPoint.HOST_TURN_DECIDED)
        began = time.perf_counter()
        await self._store.write(partial(apply_changes, changes=changes), new_work=bool(changes.new_tasks))
        reach(CrashPoint.HOST_TURN_COMMITTED)
        turn.state.accounts = turn.accounts
        self.figures.writes.add(time.perf_counter() - began)
        self.figures.commits += 1
        self.revision += 1
        self.fault = None
        self._tell(partial(self._rules.on_commit, changes))
        reach(CrashPoint.HOST_DISPATCH_WOKEN)

    def _tell(self, listener: Callable[[], None]) -> None:
        """What is committed stands, whoever cannot hear of it: a turn is never made twice for that."""
        try:
            listener()
        except Exception:
            log.exception("turn_not_told")

    async def _sort_out(
        self, batch: list[_Command], turn: Turn, error: Exception, places: bool
    ) -> list[tuple[list[_Command], bool]]:
        """Answer the command that is to blame; returns the others, one by one where it is not known which."""
        await self._log_failure(batch, turn, error)
        if not await self.reload(turn):
            await self._give_up(batch, turn, Unavailable(self.fault or "the host's database cannot be read"))
            return []
        if isinstance(error, _PlacingFailed):
            self._placing_pause.grow(self.clock.monotonic())
            return [(batch, False)]
        if isinstance(error, _HandlerFailed):
            self._blame(batch[error.place])
            rest = batch[: error.place] + batch[error.place + 1 :]
            return [(rest, True)] if rest else []
        self.figures.failed_commits += 1
        if batch and (places or len(batch) > 1):
            # Nothing is placed with them, so that what fails is one command and nothing else.
            return [*[([command], False) for command in batch], ([], places)]
        if batch:
            self._blame(batch[0])
        else:
            self._placing_pause.grow(self.clock.monotonic())
        return []

    def _blame(self, command: _Command) -> None:
        self.figures.failed_commands += 1
        _settle(command.future, InternalFault("the host met an internal error, which is in its log"))

    async def _log_failure(self, batch: list[_Command], turn: Turn, error: Exception) -> None:
        """With its trace, but not as often as somebody may make it fail."""
        if not self._traces.take(self.clock.monotonic()):
            return
        cause = error.__cause__ if isinstance(error, (_HandlerFailed, _PlacingFailed)) else error
        story = await self._story_of(cause, turn) if isinstance(cause, ForbiddenTransition) else {}
        log.error("turn_failed", commands=len(batch), untold=self._traces.beyond, exc_info=cause, **story)
        self._traces.beyond = 0

    async def _story_of(self, error: ForbiddenTransition, turn: Turn) -> dict[str, object]:
        """Whose step it was, and what had happened to that task: as committed, and in the turn given up."""
        try:
            history = await self._store.read(partial(queries.task_history, task_id=error.task_id))
        except (Unavailable, Exception) as unreadable:  # noqa: BLE001 - boundary of one look at the store
            log.warning("history_not_readable", task_id=error.task_id, reason=str(unreadable))
            history = []
        undone = [event for event in turn.changes.events if event.task_id == error.task_id]
        return {
            "task_id": error.task_id,
            "attempt": error.attempt,
            "node": error.node,
            "before": error.before.value,
            "after": error.after.value,
            "history": [_line_of(event) for event in history[-_TOLD_EVENTS:]],
            "undone": [_line_of(event) for event in undone[-_TOLD_EVENTS:]],
        }

    async def _give_up(self, batch: list[_Command], turn: Turn, error: Unavailable) -> None:
        """Answer everybody with the reason, and forget what was changed in memory."""
        await self._log_failure(batch, turn, error)
        self.figures.failed_commits += 1
        self.fault = None if self.watch.holds_new_work else str(error)
        readable = await self.reload(turn)
        for command in batch:
            _settle(command.future, error)
        if not readable:
            await self._refuse_until_readable()

    async def _refuse_until_readable(self) -> None:
        while not await self.reload():
            reason = Unavailable(self.fault or "the host's database cannot be read")
            while not self._inbox.empty():
                _settle(self._inbox.get_nowait().future, reason)
            await asyncio.sleep(_RELOAD_PAUSE_SECONDS)
        self.fault = None
        self.listening_since = self.clock.monotonic()

    async def reload(self, turn: Turn | None = None) -> bool:
        """Read the state anew, as it was before the turn; tells whether the store could be read."""
        known = {**self.state.nodes, **(turn.nodes_before if turn else {})}
        given_up = self.state.waiting.given_up
        load = partial(cluster_state.load, cluster_id=self.state.cluster_id, known=known, given_up=given_up)
        try:
            self.state = await self._store.read(load)
        except (Unavailable, Exception) as error:  # noqa: BLE001 - boundary of one look at the store
            self.fault = str(error)
            log.warning("state_not_readable", reason=str(error))
            return False
        self._placed_at = (-1, -1)
        # What failed may be in the store all the same.
        self.renew()
        self._tell(self._rules.on_reload)
        return True

    def renew(self) -> None:
        """Have whatever is kept of the store made anew, since it changed otherwise than by a turn."""
        self.revision += 1
        self._tell(self._rules.on_turn)

    @property
    def placing_fault(self) -> str | None:
        """Why nothing is placed now, though the store could take it in."""
        if not self._placing_pause.seconds:
            return None
        return "work cannot be given to nodes: the host met an internal error, which is in its log"

    def _place(self, turn: Turn) -> bool:
        """Give room to what waits, if anything changed that could make a difference; tells if it looked."""
        marks = (turn.state.table.version, turn.state.queue_version)
        is_due = self._place_again_at is not None and turn.now >= self._place_again_at
        if not len(turn.state.queue) or (marks == self._placed_at and not is_due):
            return False
        if self._placing_pause.holds(turn.monotonic):
            return False
        began = time.perf_counter()
        try:
            self._give_room(turn)
        except Exception as error:
            raise _PlacingFailed from error
        self._placed_at = (turn.state.table.version, turn.state.queue_version)
        self.figures.placing_seconds += time.perf_counter() - began
        return True

    def _give_room(self, turn: Turn) -> None:
        state = turn.state
        placements = place(state.queue, state.table, turn.now)
        for placement in placements.placed:
            task = state.tasks[placement.task_id]
            view = state.table.peek(placement.node)
            if view is None or view.obstacle(task.spec.demand) is not None:
                continue
            turn.begin(task, placement.node, placement.node)
            self.figures.placed += 1
        self._place_again_at = placements.again_at


def _line_of(event: StoredEvent | TaskEvent) -> str:
    told = f"{event.at.isoformat()} attempt {event.attempt}: {event.kind}"
    return f"{told} ({event.detail})" if event.detail else told


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
