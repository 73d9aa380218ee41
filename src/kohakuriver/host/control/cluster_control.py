"""The control room's door: what the API, the dispatcher and the timers may ask for.

Methods that change something return after the commit. Reads of tasks come from the store (committed rows),
reads of nodes from memory, which alone knows their live figures.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from kohakuriver.host.control import restored
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.endings import Endings
from kohakuriver.host.control.history import EventHistory
from kohakuriver.host.control.loop import Backlog, ControlLoop, LoopFigures, LoopRules
from kohakuriver.host.control.nodes import membership
from kohakuriver.host.control.nodes.commands import NodeCommands
from kohakuriver.host.control.nodes.door import NodeDoor
from kohakuriver.host.control.nodes.entry import NodeEntry
from kohakuriver.host.control.nodes.node import ClosedBy, NodeSnapshot, closed_by
from kohakuriver.host.control.nodes.snapshots import NodeSnapshots
from kohakuriver.host.control.nodes.watch import NodeWatch, WatchSettings
from kohakuriver.host.control.state import ClusterState, load
from kohakuriver.host.control.tasks import submission
from kohakuriver.host.control.tasks.names import resolve_task
from kohakuriver.host.control.tasks.orders import order_message
from kohakuriver.host.control.tasks.submission import SubmitResult
from kohakuriver.host.control.tasks.waiting_work import WaitingLimits
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.control.upkeep import Upkeep
from kohakuriver.host.control.vps.commands import SessionCommands
from kohakuriver.host.store import queries, task_lists
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.records import Changes, EnrolmentRow, JoinTokenRow, OrderRow, TaskEvent
from kohakuriver.host.store.store import Store
from kohakuriver.host.store.task_lists import TaskMark
from kohakuriver.models.enums import NodeStatus, TaskState, TaskType
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId, TaskIdGenerator
from kohakuriver.models.output.places import output_folders
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from kohakuriver.scheduling.explain import explain, never_fits
from kohakuriver.wire.messages import (
    EnrolAnswer,
    EnrolRequest,
    Heartbeat,
    HeartbeatAnswer,
    NodeFigures,
    Order,
    OrderAnswer,
    Registration,
    RegistrationAnswer,
    TaskReport,
)
from kohakuriver.wire.trust.identity import Identity, LinkKeys, Side

log = structlog.get_logger()

HEALTH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What the control room needs to know of the configuration."""

    shared_dir: str
    default_environment: str
    heartbeat_timeout_factor: int
    heartbeat_interval_seconds: float
    check_interval_seconds: float
    waiting_limits: WaitingLimits = field(default_factory=WaitingLimits)


class ClusterControl:
    """See the head of this file. Open with `open_control`; `run` serves until it is cancelled."""

    def __init__(
        self,
        store: Store,
        state: ClusterState,
        identity: Identity,
        settings: ControlSettings,
        last_id: int,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._identity = identity
        self._settings = settings
        self._clock = clock or Clock()
        self._ids = TaskIdGenerator(0, last_id)
        self._keys: dict[str, LinkKeys] = {}
        self._endings = Endings()
        self._snapshots = NodeSnapshots()
        self.wake_dispatch: Callable[[str], None] = lambda _node: None
        self.on_news: Callable[[], None] = lambda: None
        self.events = EventHistory(store)
        self._told = (0, 0)
        rules = LoopRules(self._new_id, self._output_paths, self._committed, self._turned)
        self._loop = ControlLoop(store, state, self._clock, rules)
        self.door = NodeDoor(self._loop, self._ids, self._clock, settings.shared_dir)
        self.node_commands = NodeCommands(self._loop)
        self.entry = NodeEntry(self._loop, identity, self._clock)
        self.upkeep = Upkeep(self._loop)
        watched = WatchSettings(
            settings.check_interval_seconds,
            settings.heartbeat_interval_seconds,
            settings.heartbeat_timeout_factor,
        )
        self._watch = NodeWatch(self._loop, self._clock, watched)
        self.sessions = SessionCommands(self._loop, settings.waiting_limits)

    async def run(self) -> None:
        """Run the loop and the check for silent nodes; ends by cancellation only."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._loop.watch.run())
            group.create_task(self._watch.run())
            group.create_task(self.entry.run(self._settings.check_interval_seconds))

    async def settle_restored(self) -> None:
        """Do what a restored state needs before anything else happens; before `run`."""
        await self._loop.turn_before_run(restored.settle)

    def _new_id(self) -> TaskId:
        return self._ids.next(int(self._clock.now().timestamp() * 1000))

    def _output_paths(self, task_id: TaskId, attempt: int) -> tuple[str, str]:
        folder = "/".join((self._settings.shared_dir, "logs", *output_folders(task_id, attempt)))
        return f"{folder}/stdout.log", f"{folder}/stderr.log"

    def _committed(self, changes: Changes) -> None:
        for node in {order.node for order in changes.new_orders.values()}:
            self.wake_dispatch(node)
        self._endings.tell(changes)

    def _turned(self) -> None:
        """Tell of a turn after which clients would see something else."""
        marks = (self._loop.revision, self._state.table.nodes_version)
        if marks != self._told:
            self._told = marks
            self.on_news()

    @property
    def _state(self) -> ClusterState:
        return self._loop.state

    # Tasks

    async def submit(self, owner: str, specs: list[TaskSpec], needs_approval: bool) -> SubmitResult:
        submit = partial(submission.submit, limits=self._settings.waiting_limits)
        with self._loop.watch.room_for(specs):
            result: SubmitResult = await self._loop.call(
                partial(submit, owner=owner, specs=specs, needs_approval=needs_approval)
            )
        # The same turn may have placed them already; what is answered is what was committed.
        fresh = [self._state.tasks.get(task.id, task) for task in result.tasks]
        return SubmitResult(fresh, result.failed)

    async def kill(self, task_id: TaskId) -> None:
        await self._on_task(task_id, submission.kill)

    async def pause(self, task_id: TaskId) -> None:
        await self._on_task(task_id, submission.pause)

    async def resume(self, task_id: TaskId) -> None:
        await self._on_task(task_id, submission.resume)

    async def approve(self, task_id: TaskId, by: str) -> None:
        await self._on_task(task_id, partial(submission.approve, by=by))

    async def reject(self, task_id: TaskId, by: str, reason: str) -> None:
        await self._on_task(task_id, partial(submission.reject, by=by, reason=reason))

    async def _on_task(self, task_id: TaskId, change: Callable[[Turn, Task], None]) -> None:
        def handler(turn: Turn) -> bool:
            task = turn.state.tasks.get(task_id)
            if task is not None:
                change(turn, task)
            return task is not None

        if not await self._loop.call(handler):
            ended = await self.find_task(task_id)
            raise Conflict(f"task {task_id} has ended already ({ended.state.value})")

    async def find_task(self, task_id: TaskId) -> Task:
        """Return the committed record; raises NotFound. A task that can never run says why."""
        task = await self._store.read(partial(queries.find_task, task_id=task_id))
        if task is None:
            raise NotFound(f"there is no task {task_id}")
        return self._with_reason(task)

    def live_task(self, task_id: TaskId) -> Task | None:
        """The record of a task that has not come to its end, from memory; None for any other."""
        return self._state.tasks.get(task_id)

    async def list_tasks(self, wanted: TaskFilter) -> list[Task]:
        return await self._store.read(partial(queries.list_tasks, wanted=wanted))

    async def list_with_kept(
        self, wanted: TaskFilter, kept: Callable[[TaskMark], bytes | None]
    ) -> list[tuple[TaskMark, Task | bytes]]:
        """List tasks; `kept`, called in another thread, has what stands in place of one: see `task_lists`."""
        return await self._store.read(partial(task_lists.list_with_kept, wanted=wanted, kept=kept))

    async def history(self, task_id: TaskId) -> list[TaskEvent]:
        return await self._store.read(partial(queries.task_history, task_id=task_id))

    async def resolve_task(self, ref: str, named: TaskType | None = None) -> TaskId:
        """Find a task by its id, an unambiguous ending of it (4 digits or more), or its newest name."""
        return await resolve_task(self._store, ref, named)

    async def wait_ended(self, task_id: TaskId, seconds: float) -> Task:
        """Return the record once the task has ended, or as it stands when the time is over."""
        with self._endings.watched(task_id) as event:
            task = await self.find_task(task_id)
            if task.state in ENDED or seconds <= 0:
                return task
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
            return await self.find_task(task_id)

    def pending_reasons(self, task: Task) -> list[tuple[str, str]]:
        """(node, why the task does not run there now), for one that waits, or whose order cannot be given."""
        if task.state is TaskState.ASSIGNING and task.assigned_node is not None:
            closed = closed_reason_of(self._state, task.assigned_node)
            return [(task.assigned_node, closed)] if closed else []
        if task.state is not TaskState.PENDING:
            return []
        return explain(task.spec.demand, self._state.table)

    def _with_reason(self, task: Task) -> Task:
        if task.state is not TaskState.PENDING:
            return task
        return replace(task, error_message=never_fits(task.spec.demand, self._state.table))

    # Nodes

    def nodes(self) -> list[NodeSnapshot]:
        """All nodes by name; one that is as it was is the same object as before."""
        return self._snapshots.of_all(self._state)

    def node_openness(self) -> dict[str, tuple[NodeStatus, str]]:
        """Of each node whether it is online, and in a few words why it takes no new work (empty: it does)."""
        table = self._state.table
        return {
            name: (
                NodeStatus.ONLINE if node.online else NodeStatus.OFFLINE,
                view.closed_reason if (view := table.peek(name)) else "",
            )
            for name, node in self._state.nodes.items()
        }

    def closed_nodes(self) -> Counter[ClosedBy]:
        """How many nodes take no new work, by the kind of reason."""
        closed = (closed_by(node) for node in self._state.nodes.values())
        return Counter(found[0] for found in closed if found is not None)

    def node_count(self) -> int:
        return len(self._state.nodes)

    def enrolments(self) -> list[EnrolmentRow]:
        return list(self._state.enrolments.values())

    def health(self, hostname: str | None) -> list[tuple[str, list[NodeFigures]]]:
        """Samples of the last minute per node, oldest first, as the nodes' own clocks have them."""
        if hostname is not None and hostname not in self._state.nodes:
            raise NotFound(f"there is no node {hostname[:80]!r}")
        names = [hostname] if hostname is not None else sorted(self._state.nodes)
        return [(name, list(self._state.nodes[name].history)[-HEALTH_SECONDS:]) for name in names]

    async def register(self, hostname: str, registration: Registration, address: str) -> RegistrationAnswer:
        return await self.door.register(hostname, registration, address)

    async def heartbeat(self, hostname: str, beat: Heartbeat) -> HeartbeatAnswer:
        answer = await self.door.heartbeat(hostname, beat)
        if answer.known:
            self.wake_dispatch(hostname)
        return answer

    async def apply_reports(self, hostname: str, told: list[TaskReport]) -> int:
        """Apply reports of a node; returns how many are committed, which is all."""
        return await self.door.apply_reports(hostname, told)

    async def enrol(self, request: EnrolRequest, address: str = "") -> EnrolAnswer:
        return await self.entry.enrol(request, address)

    async def approve_node(self, hostname: str, fingerprint: str | None, by: str) -> None:
        await self.entry.approve(hostname, fingerprint, by)

    async def create_join_token(self, by: str, hours: float) -> tuple[JoinTokenRow, str]:
        """Return the row and the token's text, which is shown once and kept nowhere."""
        return await self._loop.call(
            partial(membership.create_join_token, by=by, hours=hours, host=self._identity)
        )

    def join_tokens(self) -> list[JoinTokenRow]:
        return list(self._state.join_tokens.values())

    async def delete_join_token(self, token_id: str) -> None:
        await self._loop.call(partial(membership.delete_join_token, token_id=token_id))

    def link_keys(self, hostname: str) -> LinkKeys | None:
        """Keys shared with a node that was approved; None for any other name."""
        node = self._state.nodes.get(hostname)
        if node is None:
            return None
        if (keys := self._keys.get(node.row.public_key)) is None:
            keys = self._keys[node.row.public_key] = self._identity.link_keys(node.row.public_key, Side.HOST)
        return keys

    def other_protocol_heard(self, hostname: str, version: int, address: str) -> None:
        """Have it shown at the node, if it is enrolled."""
        if (node := self._state.nodes.get(hostname)) is not None:
            node.hear_other_protocol(version, address)

    # Dispatch

    def nodes_with_orders(self) -> set[str]:
        return self._state.orders.nodes()

    def orders_for(self, hostname: str, limit: int) -> list[Order]:
        """The oldest orders that a node has not answered, in the order of their numbers."""
        return self._messages(self._state.orders.of_node(hostname, limit))

    def kills_for(self, hostname: str, limit: int) -> list[Order]:
        """The oldest orders to kill among them."""
        return self._messages(self._state.orders.kills_of_node(hostname, limit))

    def _messages(self, rows: list[OrderRow]) -> list[Order]:
        tasks, default = self._state.tasks, self._settings.default_environment
        return [order_message(row, tasks[row.task_id], default) for row in rows if row.task_id in tasks]

    async def orders_answered(self, hostname: str, answers: list[OrderAnswer]) -> None:
        await self.door.orders_answered(hostname, answers)

    def dispatch_address(self, hostname: str) -> tuple[str, str] | None:
        """(address the node's registration came from, url it announced); None if it never registered."""
        node = self._state.nodes.get(hostname)
        if node is None or node.row.address is None or node.registration is None:
            return None
        return node.row.address, node.registration.url

    # Facts

    @property
    def cluster_id(self) -> str:
        return self._state.cluster_id

    @property
    def host_public_key(self) -> str:
        return self._identity.public_key

    @property
    def revision(self) -> int:
        """Grows with every commit."""
        return self._loop.revision

    @property
    def figures(self) -> LoopFigures:
        return self._loop.figures

    def backlog(self) -> Backlog:
        return self._loop.backlog()

    def count_by_state(self) -> dict[TaskState, int]:
        return {state: count for state, count in self._state.counts.items() if count}

    def faults(self) -> list[tuple[str, str]]:
        return self._loop.faults()


def closed_reason_of(state: ClusterState, hostname: str) -> str:
    """Why a node takes no new work; empty if it does, or is not known."""
    view = state.table.peek(hostname)
    return view.closed_reason if view is not None else ""


async def open_control(
    store: Store,
    cluster_id: str,
    identity: Identity,
    settings: ControlSettings,
    clock: Clock | None = None,
) -> ClusterControl:
    """Read the state from the store and make the control room over it."""
    read_state = partial(load, cluster_id=cluster_id, known={})
    state = await store.read(read_state)
    last_id = await store.read(queries.newest_id)
    if state.restored is not None:
        last_id = max(last_id, state.restored.highest_id)
    control = ClusterControl(store, state, identity, settings, last_id, clock)
    await control.settle_restored()
    return control
