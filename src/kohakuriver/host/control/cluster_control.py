"""The control room's door: what the API, the dispatcher and the timers may ask for.

Methods that change something return after the commit. Reads of tasks come from the store (committed rows),
reads of nodes from memory, which alone knows their live figures.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from kohakuriver.host.control import heartbeats, membership, reports, submission
from kohakuriver.host.control.clock import Clock
from kohakuriver.host.control.loop import ControlLoop, LoopFigures, LoopRules
from kohakuriver.host.control.nodes import LiveNode, NodeSnapshot, shared_storage_of
from kohakuriver.host.control.orders import order_message
from kohakuriver.host.control.state import ClusterState, load
from kohakuriver.host.control.submission import SubmitResult
from kohakuriver.host.control.turn import Turn
from kohakuriver.host.store import queries
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.records import Changes, EnrolmentRow, JoinTokenRow, TaskEvent
from kohakuriver.host.store.store import Store
from kohakuriver.models.enums import NodeStatus, TaskState
from kohakuriver.models.errors import Conflict, NotFound
from kohakuriver.models.ids import TaskId, TaskIdGenerator, parse_task_id
from kohakuriver.models.resources import Usage
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED
from kohakuriver.scheduling.explain import explain, never_fits
from kohakuriver.wire.identity import Identity, LinkKeys, Side
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

HEALTH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """What the control room needs to know of the configuration."""

    shared_dir: str
    default_environment: str
    heartbeat_timeout_factor: int
    heartbeat_interval_seconds: float
    check_interval_seconds: float


class ClusterControl:
    """See the head of this file. Open with `open_control`; `run` serves until it is cancelled."""

    def __init__(
        self, store: Store, state: ClusterState, identity: Identity, settings: ControlSettings, last_id: int
    ) -> None:
        self._store = store
        self._identity = identity
        self._settings = settings
        self._clock = Clock()
        self._ids = TaskIdGenerator(0, last_id)
        self._keys: dict[str, LinkKeys] = {}
        self._watchers: dict[TaskId, set[asyncio.Event]] = {}
        self.wake_dispatch: Callable[[str], None] = lambda _node: None
        rules = LoopRules(self._new_id, self._output_paths, self._committed)
        self._loop = ControlLoop(store, state, self._clock, rules)

    # Serving

    async def run(self) -> None:
        """Run the loop and the check for silent nodes; ends by cancellation only."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run())
            group.create_task(self._check_silence())

    async def _check_silence(self) -> None:
        began = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._settings.check_interval_seconds)
            silent = [name for name, node in self._state.nodes.items() if self._is_silent(node, began)]
            if silent:
                await self._loop.call(partial(_all_silent, names=silent))

    def _is_silent(self, node: LiveNode, began: float) -> bool:
        """Silence counts from the last beat, or from the start of this host."""
        holds_work = bool(self._state.on_node.get(node.row.hostname))
        if not (node.online or (node.last_beat is None and holds_work)):
            return False
        interval = (
            node.registration.heartbeat_interval_seconds
            if node.registration
            else self._settings.heartbeat_interval_seconds
        )
        since = began if node.last_beat is None else node.last_beat
        return self._clock.monotonic() - since > interval * self._settings.heartbeat_timeout_factor

    def _new_id(self) -> TaskId:
        return self._ids.next(int(self._clock.now().timestamp() * 1000))

    def _output_paths(self, task_id: TaskId) -> tuple[str, str]:
        folder = f"{self._settings.shared_dir}/logs/{task_id}"
        return f"{folder}/stdout.log", f"{folder}/stderr.log"

    def _committed(self, changes: Changes) -> None:
        for node in {order.node for order in changes.new_orders.values()}:
            self.wake_dispatch(node)
        for task in (*changes.new_tasks.values(), *changes.changed_tasks.values()):
            if task.state in ENDED:
                for event in self._watchers.get(task.id, ()):
                    event.set()

    @property
    def _state(self) -> ClusterState:
        return self._loop.state

    # Tasks

    async def submit(self, owner: str, specs: list[TaskSpec], needs_approval: bool) -> SubmitResult:
        handler = partial(submission.submit, owner=owner, specs=specs, needs_approval=needs_approval)
        result: SubmitResult = await self._loop.call(handler)
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

    async def list_tasks(self, wanted: TaskFilter) -> list[Task]:
        return await self._store.read(partial(queries.list_tasks, wanted=wanted))

    async def history(self, task_id: TaskId) -> list[TaskEvent]:
        return await self._store.read(partial(queries.task_history, task_id=task_id))

    async def resolve_task(self, ref: str) -> TaskId:
        """Find a task by its id, an unambiguous ending of it (4 digits or more), or its newest name."""
        if ref.isascii() and ref.isdigit():
            if len(ref) >= 18:
                return (await self.find_task(parse_task_id(ref))).id
            return await self._resolve_ending(ref)
        named = await self.list_tasks(TaskFilter(name=ref, limit=1))
        if not named:
            raise NotFound(f"there is no task with the name or id {ref[:80]!r}")
        return named[0].id

    async def _resolve_ending(self, digits: str) -> TaskId:
        if len(digits) < 4:
            raise NotFound(f"{digits!r} is too short; give at least the last 4 digits of an id")
        ids = await self._store.read(partial(queries.task_ids_ending, digits=digits, limit=2))
        if not ids:
            raise NotFound(f"there is no task whose id ends with {digits}")
        if len(ids) > 1:
            raise Conflict(f"several tasks' ids end with {digits}; give more digits")
        return TaskId(ids[0])

    async def wait_ended(self, task_id: TaskId, seconds: float) -> Task:
        """Return the record once the task has ended, or as it stands when the time is over."""
        event = asyncio.Event()
        watchers = self._watchers.setdefault(task_id, set())
        watchers.add(event)
        try:
            task = await self.find_task(task_id)
            if task.state not in ENDED and seconds > 0:
                try:
                    async with asyncio.timeout(seconds):
                        await event.wait()
                except TimeoutError:
                    return await self.find_task(task_id)
                task = await self.find_task(task_id)
            return task
        finally:
            watchers.discard(event)
            if not watchers:
                self._watchers.pop(task_id, None)

    def pending_reasons(self, task: Task) -> list[tuple[str, str]]:
        """(node, why the task does not run there now), for a task that waits in the queue."""
        if task.state is not TaskState.PENDING:
            return []
        return explain(task.spec.demand, self._state.table)

    def _with_reason(self, task: Task) -> Task:
        if task.state is not TaskState.PENDING:
            return task
        return replace(task, error_message=never_fits(task.spec.demand, self._state.table))

    # Nodes

    def nodes(self) -> list[NodeSnapshot]:
        return [self._snapshot(node) for _, node in sorted(self._state.nodes.items())]

    def _snapshot(self, node: LiveNode) -> NodeSnapshot:
        view = self._state.table.peek(node.row.hostname)
        return NodeSnapshot(
            row=node.row,
            status=NodeStatus.ONLINE if node.online else NodeStatus.OFFLINE,
            figures=node.figures,
            last_heartbeat=node.last_heartbeat,
            usage=view.usage.copy() if view else Usage(),
            faults=node.faults,
            shared_storage=shared_storage_of(node.registration, self.cluster_id),
        )

    def enrolments(self) -> list[EnrolmentRow]:
        return list(self._state.enrolments.values())

    def health(self, hostname: str | None) -> list[tuple[str, list[NodeFigures]]]:
        """Samples of the last minute per node, oldest first, as the nodes' own clocks have them."""
        if hostname is not None and hostname not in self._state.nodes:
            raise NotFound(f"there is no node {hostname[:80]!r}")
        names = [hostname] if hostname is not None else sorted(self._state.nodes)
        return [(name, list(self._state.nodes[name].history)[-HEALTH_SECONDS:]) for name in names]

    async def register(self, hostname: str, registration: Registration, address: str) -> RegistrationAnswer:
        self._check_known(hostname)
        return await self._loop.call(partial(membership.register, registration=registration, address=address))

    async def heartbeat(self, hostname: str, beat: Heartbeat) -> HeartbeatAnswer:
        self._check_known(hostname)
        answer: HeartbeatAnswer = await self._loop.call(
            partial(heartbeats.heartbeat, hostname=hostname, beat=beat)
        )
        if answer.known:
            self.wake_dispatch(hostname)
        return answer

    async def apply_reports(self, hostname: str, told: list[TaskReport]) -> int:
        """Apply reports of a node; returns how many are committed, which is all."""
        reports.check_reports(told)
        return await self._loop.call(partial(reports.apply_reports, hostname=hostname, reports=told))

    async def enrol(self, request: EnrolRequest) -> EnrolAnswer:
        return await self._loop.call(partial(membership.enrol, request=request, host=self._identity))

    async def approve_node(self, hostname: str, fingerprint: str | None, by: str) -> None:
        await self._loop.call(
            partial(membership.approve_node, hostname=hostname, fingerprint=fingerprint, by=by)
        )

    async def create_join_token(self, by: str, hours: float) -> tuple[JoinTokenRow, str]:
        """Return the row and the token's text, which is shown once and kept nowhere."""
        return await self._loop.call(
            partial(membership.create_join_token, by=by, hours=hours, host=self._identity)
        )

    def join_tokens(self) -> list[JoinTokenRow]:
        return list(self._state.join_tokens.values())

    async def delete_join_token(self, token_id: str) -> None:
        await self._loop.call(partial(membership.delete_join_token, token_id=token_id))

    def _check_known(self, hostname: str) -> None:
        if hostname not in self._state.nodes:
            raise NotFound(f"there is no node {hostname[:80]!r}")

    def link_keys(self, hostname: str) -> LinkKeys | None:
        """Keys shared with a node that was approved; None for any other name."""
        node = self._state.nodes.get(hostname)
        if node is None:
            return None
        if (keys := self._keys.get(node.row.public_key)) is None:
            keys = self._keys[node.row.public_key] = self._identity.link_keys(node.row.public_key, Side.HOST)
        return keys

    def node_key(self, hostname: str) -> bytes | None:
        """Key with which that node's requests are verified."""
        keys = self.link_keys(hostname)
        return None if keys is None else keys.node_to_host

    # Dispatch

    def nodes_with_orders(self) -> set[str]:
        return {order.node for order in self._state.orders.values()}

    def orders_for(self, hostname: str, limit: int) -> list[Order]:
        """The oldest orders that a node has not answered, in the order of their numbers."""
        rows = sorted((o for o in self._state.orders.values() if o.node == hostname), key=lambda o: o.id)
        tasks = self._state.tasks
        default = self._settings.default_environment
        return [
            order_message(row, tasks[row.task_id], default) for row in rows[:limit] if row.task_id in tasks
        ]

    async def orders_answered(self, answers: list[OrderAnswer]) -> None:
        await self._loop.call(partial(reports.orders_answered, answers=answers))

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

    def count_by_state(self) -> dict[TaskState, int]:
        counts: dict[TaskState, int] = {}
        for task in self._state.tasks.values():
            counts[task.state] = counts.get(task.state, 0) + 1
        return counts

    def faults(self) -> list[tuple[str, str]]:
        return [("store", self._loop.fault)] if self._loop.fault else []


def _all_silent(turn: Turn, names: list[str]) -> None:
    for name in names:
        heartbeats.node_silent(turn, name)


async def open_control(
    store: Store, cluster_id: str, identity: Identity, settings: ControlSettings
) -> ClusterControl:
    """Read the state from the store and make the control room over it."""
    state = await store.read(partial(load, cluster_id=cluster_id, known={}))
    last_id = await store.read(queries.newest_id)
    return ClusterControl(store, state, identity, settings, last_id)
