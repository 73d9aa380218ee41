"""A host and its runners reduced to what reconciliation needs, joined by a network that may lose, repeat and
reorder every message. The rules of the two sides are those that `scheduling.reconcile` relies on."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kohakuriver.models.attempts import Attempt as TaskAttempt
from kohakuriver.models.enums import OrderKind, TaskState
from kohakuriver.models.events import EventKind
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import ENDED, FINAL, HOLDING
from kohakuriver.scheduling.reconcile import (
    Differences,
    ExecuteOrder,
    ReportedAttempt,
    apply_change,
    reconcile_node,
    removed_node,
    silent_node,
)
from support.host.task_records import with_facts

S = TaskState
AT = datetime(2026, 1, 1, tzinfo=UTC)
Attempt = tuple[TaskId, int]


@dataclass(frozen=True)
class Order:
    order_id: int
    kind: OrderKind
    task_id: TaskId
    attempt: int


@dataclass(frozen=True)
class Ack:
    order_id: int


@dataclass(frozen=True)
class Report:
    number: int
    attempt: ReportedAttempt


@dataclass(frozen=True)
class Reports:
    reports: tuple[Report, ...]


@dataclass(frozen=True)
class ReportsCommitted:
    up_to: int


@dataclass(frozen=True)
class Beat:
    boot: int
    revision: int
    orders_seen: int
    attempts: tuple[ReportedAttempt, ...]


@dataclass(frozen=True)
class EndAttempts:
    attempts: tuple[Attempt, ...]


@dataclass
class Runner:
    """Keeps its journal (`held`, `orders_seen`, `outbox`) over a restart; `lose_all` is a new disk."""

    name: str
    started: list[Attempt]
    boot: int = 1
    beats: int = 0
    orders_seen: int = 0
    numbers: int = 0
    held: dict[Attempt, ReportedAttempt] = field(default_factory=dict)
    outbox: list[Report] = field(default_factory=list)

    def alive(self) -> dict[Attempt, TaskState]:
        return {key: entry.state for key, entry in self.held.items() if entry.state not in ENDED}

    def receive(self, message: object) -> object | None:
        """Take a message in and return the answer to it."""
        match message:
            case Order():
                self._take(message)
                return Ack(message.order_id)
            case ReportsCommitted():
                self.outbox = [report for report in self.outbox if report.number > message.up_to]
                owed = {(report.attempt.task_id, report.attempt.attempt) for report in self.outbox}
                self.held = {k: v for k, v in self.held.items() if k in owed or v.state not in ENDED}
            case EndAttempts():
                for attempt in message.attempts:
                    self.move(attempt, S.KILLED)
        return None

    def _take(self, order: Order) -> None:
        if order.order_id <= self.orders_seen:
            return
        self.orders_seen = order.order_id
        key = (order.task_id, order.attempt)
        if order.kind is OrderKind.KILL:
            self.move(key, S.KILLED)
        else:
            self.held[key] = ReportedAttempt(*key, S.ASSIGNING, 0)

    def move(self, key: Attempt, state: TaskState) -> None:
        entry = self.held.get(key)
        if entry is None or entry.state in ENDED:
            return
        if entry.state is S.ASSIGNING and state is S.RUNNING:
            self.started.append(key)
        self.held[key] = replace(entry, state=state, revision=entry.revision + 1)
        self.numbers += 1
        self.outbox.append(Report(self.numbers, self.held[key]))

    def beat(self) -> Beat:
        self.beats += 1
        return Beat(self.boot, self.beats, self.orders_seen, tuple(self.held.values()))

    def lose_all(self) -> None:
        self.held, self.outbox, self.orders_seen = {}, [], 0


class Host:
    """Holds the records; every change of a record goes through `_record`, which checks what must hold."""

    def __init__(self, nodes: list[str]) -> None:
        self.tasks: dict[TaskId, Task] = {}
        self.orders: dict[TaskId, ExecuteOrder] = {}
        self.outbox: dict[str, list[Order]] = {name: [] for name in nodes}
        self.open = dict.fromkeys(nodes, True)
        self.boots = dict.fromkeys(nodes, 1)
        self.last_beat = dict.fromkeys(nodes, 0)
        self._order_number = 0

    def submit(self, retries: int = 0) -> None:
        task_id = TaskId(len(self.tasks) + 1)
        self.tasks[task_id] = Task(task_id, TaskSpec("true", retries=retries), S.PENDING, "me", AT)

    def assign(self, task_id: TaskId, node: str) -> None:
        task = self.tasks[task_id]
        assigned = task.begun(TaskAttempt(task.attempt.number + 1, node))
        self._record(assigned)
        order = self._order(node, OrderKind.EXECUTE, assigned)
        self.orders[task_id] = ExecuteOrder(order.order_id, acknowledged=False)

    def kill(self, task_id: TaskId) -> None:
        task = self.tasks[task_id]
        if task.state is S.PENDING:
            self._record(task.to(S.KILLED))
        elif task.state in HOLDING and task.assigned_node is not None:
            self._record(changed(task, kill_requested=True))
            self._order(task.assigned_node, OrderKind.KILL, task)

    def move(self, task_id: TaskId) -> None:
        """End the attempt of a task that may run again, so that it can run somewhere else."""
        task = self.tasks[task_id]
        movable = task.state in HOLDING - {S.LOST} and task.spec.retries and not task.kill_requested
        if movable and task.assigned_node is not None:
            self._record(changed(task, move_requested=True))
            self._order(task.assigned_node, OrderKind.KILL, task)

    def remove(self, node: str) -> None:
        """Take a node out of the cluster by force and let it in again at once."""
        self.outbox[node] = []
        self._apply(node, Differences(changes=removed_node(node, list(self.tasks.values()))))
        self.open[node] = False

    def receive(self, node: str, message: object) -> object | None:
        match message:
            case Ack():
                self._acknowledged(node, message.order_id)
            case Reports():
                for report in message.reports:
                    self._apply_report(report.attempt)
                return ReportsCommitted(message.reports[-1].number) if message.reports else None
            case Beat():
                return self._compare(node, message)
        return None

    def registered(self, node: str, boot: int) -> None:
        """A new boot of a runner: what an earlier one has acknowledged is judged by any of its beats."""
        self.boots[node], self.last_beat[node] = boot, 0
        mine = {task.id for task in self.tasks.values() if task.assigned_node == node}
        self.orders = {
            key: order for key, order in self.orders.items() if key not in mine or not order.acknowledged
        }

    def falls_silent(self, node: str) -> None:
        self.open[node] = False
        self._apply(node, silent_node(node, list(self.tasks.values()), self.orders))

    def _compare(self, node: str, beat: Beat) -> EndAttempts | None:
        if beat.boot != self.boots[node] or beat.revision <= self.last_beat[node]:
            return None
        self.last_beat[node] = beat.revision
        differences = reconcile_node(node, beat.attempts, beat.orders_seen, self.tasks, self.orders)
        self._apply(node, differences)
        self.open[node] = not differences.end_attempts
        for end in differences.end_attempts:
            task = self.tasks[end.task_id]
            attempt = task.attempt
            assert task.state not in HOLDING or (attempt.number, attempt.node) != (end.attempt, node)
        return EndAttempts(tuple((end.task_id, end.attempt) for end in differences.end_attempts))

    def _apply(self, node: str, differences: Differences) -> None:
        for change in differences.changes:
            self._record(apply_change(self.tasks[change.task_id], change, AT))
            if change.state is S.PENDING or change.cause is EventKind.NODE_REMOVED:
                self.orders.pop(change.task_id, None)
                self.outbox[node] = [
                    order
                    for order in self.outbox[node]
                    if (order.task_id, order.attempt) != (change.task_id, change.attempt)
                ]

    def _apply_report(self, report: ReportedAttempt) -> None:
        task = self.tasks[report.task_id]
        if task.state not in HOLDING or (task.attempt.number, task.attempt.revision) < (report.attempt, 0):
            return
        if task.attempt.number != report.attempt or report.revision <= task.attempt.revision:
            return
        if report.state is S.KILLED and task.move_requested and task.may_run_again:
            if task.state not in (S.ASSIGNING, S.LOST):
                task = task.to(S.LOST)
            self._record(task.run_again("moved"))
            self.orders.pop(task.id, None)
            return
        for state in task.steps_to(report.state) if task.state is not report.state else ():
            task = task.to(state)
        self._record(with_facts(task, revision=report.revision))

    def _acknowledged(self, node: str, order_id: int) -> None:
        self.outbox[node] = [order for order in self.outbox[node] if order.order_id != order_id]
        for task_id, order in self.orders.items():
            if order.order_id == order_id:
                self.orders[task_id] = replace(order, acknowledged=True)

    def _order(self, node: str, kind: OrderKind, task: Task) -> Order:
        self._order_number += 1
        order = Order(self._order_number, kind, task.id, task.attempt.number)
        self.outbox[node].append(order)
        return order

    def _record(self, task: Task) -> None:
        before = self.tasks[task.id]
        assert before.state not in FINAL
        assert task.attempt.number >= before.attempt.number
        assert task.retries_used <= task.spec.retries
        assert not (before.kill_requested and task.state is S.PENDING)
        self.tasks[task.id] = task
