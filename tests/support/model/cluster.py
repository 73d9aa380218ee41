"""A whole cluster in virtual time, what its users did, and what must hold of it after each step.

What is checked is not only what host and runners say of themselves: the machines know what really ran, how
often, and how it ended.
"""

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from kohakuriver.host.control import state as cluster_state
from kohakuriver.host.control.state import ClusterState
from kohakuriver.host.store import queries
from kohakuriver.host.store.queries import TaskFilter
from kohakuriver.host.store.records import OrderRow
from kohakuriver.host.store.store import DiskFault
from kohakuriver.models.enums import TaskState
from kohakuriver.models.errors import KohakuRiverError
from kohakuriver.models.ids import TaskId
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.models.transitions import FINAL, HOLDING
from kohakuriver.runner.engines.contract.engine import WorkloadState
from support.model.host import CHECK_SECONDS, CLUSTER_ID, SILENCE_SECONDS, ModelHost
from support.model.lossy_network import Lane, LossyNetwork
from support.model.runner import CORES, MEMORY_BYTES, ModelRunner
from support.model.virtual_time import VirtualLoop
from support.runner.machine_engine import Key, Machine

NODES = ("n1", "n2", "n3")
REFUSED = "not a name"
"""A variable's name for which any runner refuses to run a task."""
_ROUNDS = 40
S = TaskState


@dataclass
class RecordingMachine(Machine):
    """Remembers how each workload ended."""

    ended: dict[Key, int] = field(default_factory=dict)

    async def finish(self, key: Key, exit_code: int, *, oom_killed: bool = False, fell: bool = False) -> None:
        self.ended[key] = exit_code
        await super().finish(key, exit_code, oom_killed=oom_killed, fell=fell)


class ModelCluster:
    """`accepted`: tasks whose submission was answered; `kill_asked`: those that a user wanted killed."""

    def __init__(self) -> None:
        structlog.configure(processors=[_drop])
        self.loop = VirtualLoop()
        self.network = LossyNetwork(self.loop, self._serve)
        self.host = ModelHost(self.loop, self.network)
        self.runners = {
            name: ModelRunner(name, self.loop, self.network, RecordingMachine()) for name in NODES
        }
        self.accepted: set[TaskId] = set()
        self.kill_asked: set[TaskId] = set()
        self._seen: dict[TaskId, Task] = {}
        self._heard: dict[str, float] = {}
        self._host_fared_ill = True
        self._host_life: object = None
        self.host.start()
        for name, runner in self.runners.items():
            self.host.take_in(name)
            runner.start()

    async def _serve(self, lane: Lane, content: Any) -> Any:
        node, to_host = lane
        if to_host:
            self._heard[node] = self.loop.time()
        return await (self.host.receive(node, content) if to_host else self.runners[node].receive(content))

    def close(self) -> None:
        for runner in self.runners.values():
            runner.kill()
        self.host.kill()
        self.network.close()
        self.loop.settle()
        self.host.store.close()
        self.loop.close()
        structlog.reset_defaults()

    # What users do

    def submit(self, spec: TaskSpec, *, needs_approval: bool) -> None:
        if self.host.control is not None:
            result = self.ask(self.host.control.tasks.submit("alice", [spec], needs_approval=needs_approval))
            if result is not None:
                self.accepted.update(task.id for task in result.tasks)

    def kill(self, task_id: TaskId) -> None:
        if self.host.control is not None:
            self.kill_asked.add(task_id)
            self.ask(self.host.control.tasks.kill(task_id))

    def ask(self, request: Coroutine[Any, Any, Any]) -> Any:
        """Return the answer; None if the host refused, or died over it."""
        asking = self.loop.do(request)
        if not asking.done():
            assert self.host.control is None, "the host does not answer"
            asking.cancel()
            self.loop.settle()
            return None
        try:
            return asking.result()
        except KohakuRiverError:
            return None

    def live_tasks(self) -> list[Task]:
        return self.host.rows.look(queries.live_tasks)

    def workloads(self, *states: WorkloadState) -> list[tuple[ModelRunner[RecordingMachine], Key]]:
        """What is on the machines in one of the states."""
        return [
            (runner, key)
            for runner in self.runners.values()
            for key, workload in runner.machine.workloads.items()
            if workload.state in states
        ]

    def finish(self, runner: ModelRunner[RecordingMachine], key: Key, exit_code: int) -> None:
        self.loop.do(runner.machine.finish(key, exit_code))

    # What must hold at any time

    def check(self) -> None:
        for defect in (self.host.defect, *(runner.defect for runner in self.runners.values())):
            if defect is not None:
                raise defect
        self._check_starts()
        tasks = self.host.rows.look(
            lambda connection: queries.list_tasks(connection, TaskFilter(limit=10_000))
        )
        self._check_records({task.id: task for task in tasks})
        if self.host.control is not None:
            self._check_memory(self.host.control.loop.state)
        self._check_silence()

    def _check_starts(self) -> None:
        """An attempt starts its command at most once, on one node."""
        started = [key for runner in self.runners.values() for key in runner.machine.starts]
        assert len(started) == len(set(started)), f"started on two nodes: {started}"
        for runner in self.runners.values():
            assert all(count == 1 for count in runner.machine.starts.values()), runner.machine.starts

    def _check_records(self, tasks: dict[TaskId, Task]) -> None:
        assert self.accepted <= tasks.keys(), "an accepted task was forgotten"
        for task_id, before in self._seen.items():
            after = tasks[task_id]
            assert after.attempt.number >= before.attempt.number
            assert before.state not in FINAL or after == before, f"changed after its end: {before} {after}"
        for task in tasks.values():
            assert task.retries_used <= task.spec.retries
            if task.state in FINAL and task.assigned_node is not None:
                self._check_truth(task, self.runners[task.assigned_node])
        self._seen = tasks

    def _check_truth(self, task: Task, runner: ModelRunner[RecordingMachine]) -> None:
        """How a task ended on record is how it ended on its node."""
        key = (task.id, task.attempt.number)
        if task.state is S.KILLED:
            assert task.id in self.kill_asked, f"nobody wanted it killed: {task}"
        elif task.attempt.exit_code is not None:
            assert runner.machine.ended.get(key) == task.attempt.exit_code, task
            assert (task.state is S.COMPLETED) == (task.attempt.exit_code == 0)
        else:
            assert task.state is S.FAILED
            refused = any(name == REFUSED for name, _ in task.spec.env_vars)
            assert refused or key in runner.vanished, f"it did not vanish: {task}"

    def _check_memory(self, state: ClusterState) -> None:
        """Nothing is given out twice, and what the host holds in memory is what its store says."""
        for name in NODES:
            held = [t for t in state.tasks.values() if t.assigned_node == name and t.state in HOLDING]
            assert sum(task.spec.demand.cores for task in held) <= CORES
            assert sum(task.spec.demand.memory_bytes for task in held) <= MEMORY_BYTES
            gpus = [gpu for task in held for gpu in task.spec.demand.gpus]
            assert len(gpus) == len(set(gpus)), f"GPUs of {name} given out twice: {held}"
        for order in state.orders:
            task = state.tasks.get(order.task_id)
            assert task is not None, f"an order of an ended task is open: {order}"
            assert (task.assigned_node, task.attempt.number) == (order.node, order.attempt), order
        fresh = self.host.rows.look(lambda connection: cluster_state.load(connection, CLUSTER_ID, {}))
        assert state.tasks == fresh.tasks
        assert _by_id(state.orders) == _by_id(fresh.orders)
        assert list(state.queue) == list(fresh.queue)
        assert {v.name: v.usage for v in state.table} == {v.name: v.usage for v in fresh.table}

    def _check_silence(self) -> None:
        """The work of a node that is silent for too long is not said to run there."""
        full = any(isinstance(fault.error, DiskFault) for fault in self.host.store.faults_of_writes)
        ill = self.host.control is None or full
        now = self.loop.time()
        if ill or self._host_fared_ill or self._host_life is not self.host.control:
            self._heard = dict.fromkeys(NODES, now)
        self._host_fared_ill, self._host_life = ill, self.host.control
        silent = [name for name in NODES if now - self._heard[name] > SILENCE_SECONDS + CHECK_SECONDS]
        for task in self._seen.values():
            assert task.assigned_node not in silent or task.state not in HOLDING - {S.LOST}, task

    # What must come true once nothing disturbs

    def heal(self) -> None:
        """Nothing fails any more: everything ends, and nothing is left anywhere."""
        self._mend()
        self.loop.advance(2 * SILENCE_SECONDS)
        self._check_only_what_is_wanted_runs()
        rounds = 0
        while self._unfinished():
            rounds += 1
            assert rounds <= _ROUNDS, f"no end is in sight: {self._unfinished()}"
            self._go_on()
            self.check()
        self._open_nodes()
        self.loop.advance(3 * SILENCE_SECONDS)
        self.check()
        self._check_nothing_is_left()

    def _mend(self) -> None:
        self.host.store.mend()
        if self.host.control is None:
            self.host.start()
        for runner in self.runners.values():
            runner.protected()
            runner.disk.full = 0
            if not runner.alive:
                runner.start()
        self.network.heal()
        self.loop.settle()

    def _check_only_what_is_wanted_runs(self) -> None:
        """What the host gave up was ended on its word, and not only when its command came to an end."""
        wanted: dict[Key, str | None] = {
            (task.id, task.attempt.number): task.assigned_node for task in self.live_tasks()
        }
        for runner, key in self.workloads(*WorkloadState):
            assert wanted.get(key) == runner.name, f"{runner.name} still runs {key}"

    def _unfinished(self) -> list[Any]:
        held = [
            entry for runner in self.runners.values() if runner.agent for entry in runner.agent.attempts()[0]
        ]
        return self.live_tasks() + held

    def _go_on(self) -> None:
        assert self.host.control is not None
        self._open_nodes()
        for task in self.live_tasks():
            if task.state is S.PENDING_APPROVAL:
                self.ask(self.host.control.tasks.approve(task.id, "olga"))
            elif task.state is S.PAUSED:
                self.ask(self.host.control.tasks.resume(task.id))
        self.loop.advance(SILENCE_SECONDS / 2)
        for runner, key in self.workloads(WorkloadState.RUNNING):
            self.finish(runner, key, 0)

    def _open_nodes(self) -> None:
        assert self.host.control is not None
        for name in NODES:
            self.ask(self.host.control.nodes.undrain(name))

    def _check_nothing_is_left(self) -> None:
        assert self.host.control is not None
        state = self.host.control.loop.state
        assert (state.tasks, list(state.orders), list(state.queue)) == ({}, [], [])
        for view in state.table:
            assert (view.usage.cores, view.usage.memory_bytes, view.usage.gpus, view.usage.tasks) == (
                0,
                0,
                set(),
                0,
            )
            assert view.accepts_work, f"{view.name} {view.closed_reason}"
        for runner in self.runners.values():
            assert runner.machine.workloads == {}
            assert runner.book is not None
            assert list(runner.book.book) == []


def _by_id(orders: Iterable[OrderRow]) -> dict[int, OrderRow]:
    return {order.id: order for order in orders}


def _drop(_logger: object, _method: str, _event: object) -> dict[str, object]:
    """Thousands of expected faults are of no interest, and tracebacks of them cost more than the model."""
    raise structlog.DropEvent
