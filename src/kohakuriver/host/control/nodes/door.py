"""What nodes say, on its way into the control loop.

Rules: a node speaks for its own work alone, and harms nobody else's. What its messages may hold at all is
said by their types (`wire.bounds`). A kind of message that made the host fail all the same is shown as
a fault of its node, and taken again after a pause, which grows.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog

from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.loop import ControlLoop, InternalFault
from kohakuriver.host.control.nodes import heartbeats, membership, reach
from kohakuriver.host.control.nodes.node import REACH
from kohakuriver.host.control.tasks import reports
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.control.vps import runs as sessions
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import NotFound, Unavailable
from kohakuriver.models.ids import TaskIdGenerator, highest_id_at
from kohakuriver.models.tasks import Task
from kohakuriver.pauses import Pause
from kohakuriver.wire.messages import (
    Heartbeat,
    HeartbeatAnswer,
    OrderAnswer,
    Registration,
    RegistrationAnswer,
    TaskReport,
)

log = structlog.get_logger()

_CLOCK_SKEW_MS = 3_600_000
_T = TypeVar("_T")


class NodeDoor:
    """Methods return after the commit. `ids` gives the numbers of tasks and orders.

    `on_registered` is told of each node that was taken in, to call it; without it no node waits for a call.
    """

    def __init__(self, loop: ControlLoop, ids: TaskIdGenerator, clock: Clock, shared_dir: str) -> None:
        self._loop = loop
        self._ids = ids
        self._clock = clock
        self._shared_dir = shared_dir
        self._pauses: dict[tuple[str, str], Pause] = {}
        self._ahead: set[tuple[str, str]] = set()
        self.on_registered: Callable[[str], None] | None = None

    async def register(self, hostname: str, registration: Registration, address: str) -> RegistrationAnswer:
        take_in = partial(membership.register, registration=registration, address=address)
        handler = partial(take_in, shared_dir=self._shared_dir)
        if self.on_registered is not None:
            handler = partial(_closed_until_called, take_in=handler, hostname=hostname)
        answer = await self._call(hostname, "registration", handler)
        if answer.known and self.on_registered is not None:
            self.on_registered(hostname)
        return answer

    async def heartbeat(self, hostname: str, beat: Heartbeat) -> HeartbeatAnswer:
        reported = heartbeats.reported_attempts(beat)
        self._hear_of_numbers(hostname, beat)
        handler = partial(heartbeats.heartbeat, hostname=hostname, beat=beat, reported=reported)
        answer = await self._call(hostname, "heartbeat", handler, needs_store=False)
        self._loop.figures.heartbeats += 1
        return answer

    def progress_of(self, task: Task) -> str | None:
        """How far the image of a task that starts is on its way to its node, as the node said last."""
        node = self._loop.state.nodes.get(task.assigned_node or "")
        return node.progress.get(task.id) if node and task.state is TaskState.ASSIGNING else None

    def starting_on(self, hostname: str) -> list[Task]:
        """The tasks that were given to a node and do not run yet."""
        state = self._loop.state
        tasks = (state.tasks[task_id] for task_id in state.on_node.get(hostname, ()))
        return [task for task in tasks if task.state is TaskState.ASSIGNING]

    async def apply_reports(self, hostname: str, told: list[TaskReport]) -> int:
        """Apply reports; returns how many are committed, which is all."""
        reports.check_reports(told)
        self._loop.figures.reports += len(told)
        return await self._call(
            hostname, "reports", partial(reports.apply_reports, hostname=hostname, reports=told)
        )

    async def orders_answered(self, hostname: str, answers: list[OrderAnswer]) -> None:
        handler = partial(reports.orders_answered, hostname=hostname, answers=answers)
        await self._call(hostname, "answers to orders", handler)

    async def set_fault(self, hostname: str, part: str, sentence: str) -> None:
        """Show on the node what this host found out about it; an empty sentence takes that back."""
        node = self._loop.state.nodes.get(hostname)
        if node is not None and node.host_faults.get(part, "") != sentence:
            handler = partial(_put_fault, hostname=hostname, part=part, sentence=sentence)
            await self._loop.call(handler, needs_store=False)

    def is_online(self, hostname: str) -> bool:
        node = self._loop.state.nodes.get(hostname)
        return node is not None and node.online

    async def got_through(self, hostname: str) -> None:
        """A call of this host was answered by the node."""
        node = self._loop.state.nodes.get(hostname)
        if node is not None and (node.awaits_call or node.unreached_since is not None):
            await self._loop.call(partial(_open_again, hostname=hostname), needs_store=False)

    async def not_reached(self, hostname: str, sentence: str) -> None:
        """A call of this host did not get through to the node."""
        node = self._loop.state.nodes.get(hostname)
        if node is not None and node.host_faults.get(REACH) != sentence:
            handler = partial(reach.not_reached, hostname=hostname, sentence=sentence)
            await self._loop.call(handler, needs_store=False)

    async def _call(
        self, hostname: str, kind: str, handler: Callable[[Turn], _T], *, needs_store: bool = True
    ) -> _T:
        if hostname not in self._loop.state.nodes:
            raise NotFound(f"there is no node {hostname[:80]!r}")
        key = hostname, kind
        pause = self._pauses.get(key)
        if pause is not None and pause.holds(self._clock.monotonic()):
            raise Unavailable(f"the {kind} of node {hostname} made the host fail a moment ago; see its log")
        try:
            result = await self._loop.call(handler, needs_store=needs_store)
        except InternalFault:
            self._pauses.setdefault(key, Pause()).grow(self._clock.monotonic())
            log.warning("node_made_host_fail", node=hostname, kind=kind)
            await self.set_fault(
                hostname, kind, f"the host cannot take in its {kind}; the host's log says why"
            )
            raise
        if pause is not None:
            del self._pauses[key]
            await self.set_fault(hostname, kind, "")
        return result

    def _hear_of_numbers(self, hostname: str, beat: Heartbeat) -> None:
        """After a restore nodes may know of numbers that this host does not. It never follows one beyond what
        the clock allows, so that nobody can use up what is to be given out.
        """
        now_ms = int(self._clock.now().timestamp() * 1000)
        if beat.orders_seen > highest_id_at(now_ms + _CLOCK_SKEW_MS):
            if (hostname, beat.boot_id) not in self._ahead:
                self._ahead = {each for each in self._ahead if each[0] != hostname} | {
                    (hostname, beat.boot_id)
                }
                log.warning("orders_never_given", node=hostname, seen=beat.orders_seen)
        elif self._loop.state.restored is not None:
            self._ids.pass_over(beat.orders_seen)


def _closed_until_called(
    turn: Turn, take_in: Callable[[Turn], RegistrationAnswer], hostname: str
) -> RegistrationAnswer:
    answer = take_in(turn)
    if answer.known:
        reach.await_call(turn, hostname)
    return answer


def _open_again(turn: Turn, hostname: str) -> None:
    reach.got_through(turn, hostname)
    if not turn.read_only:
        sessions.begin_waiting(turn, hostname)


def _put_fault(turn: Turn, hostname: str, part: str, sentence: str) -> None:
    node = turn.known_node(hostname)
    others = {name: told for name, told in node.host_faults.items() if name != part}
    node.host_faults = {**others, part: sentence} if sentence else others
    turn.state.refresh_status(hostname)
