"""The live part of the cluster in memory: tasks that may still change, the queue, the ledger, open orders.

Everything here can be built again from the store (`load`), which is what happens at start and
after a commit that failed. `put` is the only way in which a task changes, so queue and ledger follow.
"""

from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import Connection

from kohakuriver.host.control.accounts.accounts import Accounts
from kohakuriver.host.control.nodes.node import LiveNode, closed_reason, view_of
from kohakuriver.host.control.tasks.order_book import OrderBook
from kohakuriver.host.control.tasks.waiting_work import GivenUpWork, WaitingWork
from kohakuriver.host.store import queries
from kohakuriver.host.store.records import EnrolmentRow, JoinTokenRow, VpsAssignment
from kohakuriver.host.store.restore_mark import RestoreMark
from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task
from kohakuriver.models.transitions import FINAL, HOLDING, RESTARTABLE
from kohakuriver.scheduling.nodes import NodeTable
from kohakuriver.scheduling.queue import QueuedTask, TaskQueue


@dataclass(slots=True)
class ClusterState:
    """`tasks` holds what may still change: what is not final, and VPSs that can be started again;
    `on_node` the ids of those among them that have a node.
    `queue_version` grows whenever a task joins the queue. `bounced`: how often nodes could not begin a task
    by their own doing. `accounts`: always as committed."""

    cluster_id: str
    tasks: dict[TaskId, Task] = field(default_factory=dict)
    counts: Counter[TaskState] = field(default_factory=Counter)
    on_node: dict[str, set[TaskId]] = field(default_factory=dict)
    queue: TaskQueue = field(default_factory=TaskQueue)
    queue_version: int = 0
    table: NodeTable = field(default_factory=NodeTable)
    nodes: dict[str, LiveNode] = field(default_factory=dict)
    orders: OrderBook = field(default_factory=OrderBook)
    enrolments: dict[str, EnrolmentRow] = field(default_factory=dict)
    join_tokens: dict[str, JoinTokenRow] = field(default_factory=dict)
    accounts: Accounts = field(default_factory=Accounts)
    restored: RestoreMark | None = None
    waiting: WaitingWork = field(default_factory=WaitingWork)
    bounced: dict[TaskId, int] = field(default_factory=dict)

    def next_number(self, task: Task) -> int:
        """The number of the task's next attempt, above all that were given out, before a restore as well."""
        mark = self.restored
        floor = mark.attempt_floor if mark is not None and mark.is_of_backup(task.id) else 0
        return max(task.attempt.number, floor) + 1

    def put(self, task: Task) -> None:
        """Take a task's new record in; queue, ledger and the per-node index follow its state."""
        before = self.tasks.get(task.id)
        if before is not None:
            self._leave(before)
        if task.state in FINAL and not (task.is_vps and task.state in RESTARTABLE):
            self.tasks.pop(task.id, None)
            self.bounced.pop(task.id, None)
            return
        self.tasks[task.id] = task
        self.counts[task.state] += 1
        self.waiting.add(task)
        if task.state is TaskState.PENDING:
            self.queue_version += 1
            self.queue.add(QueuedTask(task.id, task.demand, task.submitted_at, task.spec.priority))
        if task.assigned_node is not None:
            self.on_node.setdefault(task.assigned_node, set()).add(task.id)
            if task.state in HOLDING and task.assigned_node in self.table:
                self.table.take(task.assigned_node, task.spec.demand, lasting=task.is_vps)

    def forget(self, task_id: TaskId) -> None:
        """Take out a task whose record is deleted."""
        task = self.tasks.pop(task_id, None)
        if task is not None:
            self._leave(task)

    def _leave(self, task: Task) -> None:
        self.counts[task.state] -= 1
        self.waiting.take_out(task)
        if task.state is TaskState.PENDING:
            self.queue.remove(task.id)
        if task.assigned_node is not None:
            self.on_node.get(task.assigned_node, set()).discard(task.id)
            if task.state in HOLDING:
                self.table.give_back(task.assigned_node, task.spec.demand, lasting=task.is_vps)

    def has_work_said_to_run(self, name: str) -> bool:
        """Tell whether the node holds work that is not on record as lost."""
        states = (self.tasks[task_id].state for task_id in self.on_node.get(name, ()))
        return any(state in HOLDING and state is not TaskState.LOST for state in states)

    def put_node(self, node: LiveNode) -> None:
        """Take in a node that is new or registered anew; what runs on it stays counted."""
        name = node.row.hostname
        self.nodes[name] = node
        self.table.put(view_of(node, self.cluster_id))
        for task_id in self.on_node.get(name, ()):
            task = self.tasks[task_id]
            if task.state in HOLDING:
                self.table.take(name, task.spec.demand, lasting=task.is_vps)

    def remove_node(self, name: str) -> None:
        """Forget a node that holds no task any more."""
        del self.nodes[name]
        self.table.remove(name)
        self.on_node.pop(name, None)

    def refresh_status(self, name: str) -> None:
        """Have the scheduler see whether the node is open, after something changed about that."""
        node = self.nodes[name]
        self.table.set_status(name, closed_reason(node))


def load(
    connection: Connection, cluster_id: str, known: dict[str, LiveNode], given_up: GivenUpWork | None = None
) -> ClusterState:
    """Build the state from the store. `known` keeps what nodes told since they beat last."""
    waiting = WaitingWork(given_up or GivenUpWork())
    state = ClusterState(cluster_id, restored=queries.restore_mark(connection), waiting=waiting)
    for row in queries.all_nodes(connection):
        before = known.get(row.hostname)
        node = LiveNode(row)
        if before is not None:
            node.online, node.figures, node.history = before.online, before.figures, before.history
            node.last_beat, node.last_heartbeat = before.last_beat, before.last_heartbeat
            node.beat_revision, node.accepted = before.beat_revision, before.accepted
            node.session, node.offered = before.session, before.offered
            node.ends_workloads = before.ends_workloads
            node.unknown_workloads = before.unknown_workloads
            node.just_ended, node.told = before.just_ended, before.told
            node.host_faults = before.host_faults
            node.orphans, node.take_over = before.orphans, before.take_over
            node.differences = before.differences
            node.awaits_call, node.reached_boot = before.awaits_call, before.reached_boot
            node.unreached_since = before.unreached_since
        state.put_node(node)
    for task in (*queries.live_tasks(connection), *queries.failed_vps(connection)):
        state.put(task)
    state.orders = OrderBook(queries.all_orders(connection))
    state.enrolments = {row.fingerprint: row for row in queries.all_enrolments(connection)}
    state.join_tokens = {row.id: row for row in queries.all_join_tokens(connection)}
    state.accounts = _accounts(connection)
    return state


def _accounts(connection: Connection) -> Accounts:
    assignments: dict[TaskId, dict[str, VpsAssignment]] = {}
    for row in queries.all_assignments(connection):
        assignments.setdefault(row.task_id, {})[row.user_name] = row
    return Accounts(
        {user.name: user for user in queries.all_users(connection)},
        {token.hash: token for token in queries.all_tokens(connection)},
        assignments,
        queries.newest_token_number(connection),
    )
