"""What runners say and are told: first contact, registrations, heartbeats, reports, and orders to them.

Rules: a node speaks only for its own work, and harms nobody else's. What its messages may hold at all is
said by their types (`wire.bounds`). A kind of message that made the host fail all the same is shown as
a fault of its node, and taken again after a pause, which grows. Anybody can ask to be let in: who waits
already, and tokens that are none, are answered here, so that asking again and again costs the control loop
nothing; the rest, but for good tokens, is bounded by address and in all.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import structlog

from kohakuriver.host.control.loop import ControlLoop, InternalFault
from kohakuriver.host.control.nodes import enrolling, heartbeats, reach, registering, reports
from kohakuriver.host.control.nodes.node import REACH
from kohakuriver.host.control.nodes.pending_runners import PendingRunners
from kohakuriver.host.control.tasks.orders import order_message
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.control.vps import runs
from kohakuriver.host.store.records import OrderRow
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import NotFound, Unavailable
from kohakuriver.models.ids import TaskIdGenerator, highest_id_at
from kohakuriver.models.network.address_groups import address_group
from kohakuriver.models.tasks import Task
from kohakuriver.pauses import Pause
from kohakuriver.wire.messages import (
    EnrolAnswer,
    EnrolRequest,
    Heartbeat,
    HeartbeatAnswer,
    Order,
    OrderAnswer,
    Registration,
    RegistrationAnswer,
    TaskReport,
)
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side, fingerprint_of

log = structlog.get_logger()

_CLOCK_SKEW_MS = 3_600_000
_T = TypeVar("_T")


class RunnerControl:
    """What changes something returns after the commit. `ids` gives the numbers of tasks and orders.
    `must_match`: settings of this host that each runner must have alike.

    `wake_dispatch` hears of nodes that have new orders, or were heard. `on_registered` hears of each node
    that was taken in, to call it; without it no node waits for a call.
    """

    def __init__(
        self,
        loop: ControlLoop,
        ids: TaskIdGenerator,
        identity: Identity,
        waiting: PendingRunners,
        must_match: Mapping[str, object],
        default_environment: str,
    ) -> None:
        self._loop = loop
        self._ids = ids
        self._identity = identity
        self._waiting = waiting
        self._must_match = must_match
        self._default_environment = default_environment
        self._keys: dict[str, LinkKeys] = {}
        self._pauses: dict[tuple[str, str], Pause] = {}
        self._ahead: set[tuple[str, str]] = set()
        self.wake_dispatch: Callable[[str], None] = lambda _node: None
        self.on_registered: Callable[[str], None] | None = None

    async def enrol(self, request: EnrolRequest, address: str = "") -> EnrolAnswer:
        """Answer a runner's first contact; raises TooMany while too many ask."""
        state, group = self._loop.state, address_group(address)
        enrolling.check_request(state, request, self._loop.clock.now(), self._identity)
        if request.join_token_id is None:
            fingerprint = fingerprint_of(request.public_key)
            enrolling.check_not_refused(self._waiting, state, request)
            if fingerprint in state.enrolments:
                self._waiting.note(fingerprint, group)
                return enrolling.answer_of(state, request, self._identity)
            self._waiting.check_rate(group)
        handler = partial(enrolling.enrol, request=request, host=self._identity)
        return await self._loop.call(partial(handler, waiting=self._waiting, address=group))

    def link_keys(self, hostname: str) -> LinkKeys | None:
        """Keys shared with a node that was approved; None for any other name."""
        node = self._loop.state.nodes.get(hostname)
        if node is None:
            return None
        if (keys := self._keys.get(node.row.public_key)) is None:
            keys = self._keys[node.row.public_key] = self._identity.link_keys(node.row.public_key, Side.HOST)
        return keys

    def other_protocol_heard(self, hostname: str, version: int, address: str) -> None:
        """Have it shown at the node, if it is enrolled."""
        if (node := self._loop.state.nodes.get(hostname)) is not None:
            node.hear_other_protocol(version, address)

    async def register(self, hostname: str, registration: Registration, address: str) -> RegistrationAnswer:
        take_in = partial(registering.register, registration=registration, address=address)
        handler = partial(take_in, ours=self._must_match)
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
        if answer.known:
            self.wake_dispatch(hostname)
        return answer

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

    def nodes_with_orders(self) -> set[str]:
        return self._loop.state.orders.nodes()

    def orders_for(self, hostname: str, limit: int) -> list[Order]:
        """The oldest orders that a node has not answered, in the order of their numbers."""
        return self._messages(self._loop.state.orders.of_node(hostname, limit))

    def kills_for(self, hostname: str, limit: int) -> list[Order]:
        """The oldest orders to kill among them."""
        return self._messages(self._loop.state.orders.kills_of_node(hostname, limit))

    def _messages(self, rows: list[OrderRow]) -> list[Order]:
        tasks, default = self._loop.state.tasks, self._default_environment
        return [order_message(row, tasks[row.task_id], default) for row in rows if row.task_id in tasks]

    def dispatch_address(self, hostname: str) -> tuple[str, str] | None:
        """(address the node's registration came from, url it announced); None if it never registered."""
        node = self._loop.state.nodes.get(hostname)
        if node is None or node.row.address is None or node.registration is None:
            return None
        return node.row.address, node.registration.url

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
        if pause is not None and pause.holds(self._loop.clock.monotonic()):
            raise Unavailable(f"the {kind} of node {hostname} made the host fail a moment ago; see its log")
        try:
            result = await self._loop.call(handler, needs_store=needs_store)
        except InternalFault:
            self._pauses.setdefault(key, Pause()).grow(self._loop.clock.monotonic())
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
        now_ms = int(self._loop.clock.now().timestamp() * 1000)
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
        runs.begin_waiting(turn, hostname)


def _put_fault(turn: Turn, hostname: str, part: str, sentence: str) -> None:
    node = turn.known_node(hostname)
    others = {name: told for name, told in node.host_faults.items() if name != part}
    node.host_faults = {**others, part: sentence} if sentence else others
    turn.state.refresh_status(hostname)
