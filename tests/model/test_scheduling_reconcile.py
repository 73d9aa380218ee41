"""Reconciliation under lost, repeated and reordered messages, silent nodes and restarts of runners."""

from enum import Enum

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kohakuriver.models.enums import TaskState
from kohakuriver.models.ids import TaskId
from kohakuriver.models.transitions import HOLDING
from support.reconcile_lab import Attempt, Host, Reports, Runner

S = TaskState
NODES = ["n1", "n2"]
nodes = st.sampled_from(NODES)
indices = st.integers(0, 10**6)

Message = tuple[str, bool, object]
"""Node, whether it goes to the host, and what is sent."""


class Fate(Enum):
    """What happens to a message and to the answer to it."""

    ARRIVES = "arrives and is answered"
    ANSWER_LOST = "arrives, and the answer is lost"
    ANSWER_LATE = "arrives, and the answer comes late"
    LATE = "arrives late"
    REPEATED = "arrives, is answered, and arrives once more late"


fates = st.sampled_from([Fate.ARRIVES, *Fate])


class ReconcileMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.started: list[Attempt] = []
        self.host = Host(NODES)
        self.runners = {name: Runner(name, self.started) for name in NODES}
        self.network: list[Message] = []

    @rule(node=nodes, order=fates, report=fates, retries=st.sampled_from([0, 0, 1, 3]))
    def submit_and_run(self, node: str, order: Fate, report: Fate, retries: int) -> None:
        if len(self.host.tasks) < 4 and self.host.open[node]:
            self.host.submit(retries)
            self._run(TaskId(len(self.host.tasks)), node, order, report)

    @precondition(lambda self: any(task.state is S.PENDING for task in self.host.tasks.values()))
    @rule(index=indices, node=nodes, order=fates, report=fates)
    def run_again(self, index: int, node: str, order: Fate, report: Fate) -> None:
        waiting = [key for key, task in self.host.tasks.items() if task.state is S.PENDING]
        if self.host.open[node]:
            self._run(waiting[index % len(waiting)], node, order, report)

    @precondition(lambda self: self.host.tasks)
    @rule(index=indices)
    def kill(self, index: int) -> None:
        self.host.kill(TaskId(index % len(self.host.tasks) + 1))

    @precondition(lambda self: self.host.tasks)
    @rule(index=indices)
    def move(self, index: int) -> None:
        self.host.move(TaskId(index % len(self.host.tasks) + 1))

    @rule(node=nodes)
    def node_is_removed_and_let_in_again(self, node: str) -> None:
        """What its runner holds, journal and all, is not the cluster's any more."""
        self.host.remove(node)
        self.network = [message for message in self.network if message[0] != node]
        self._reboot(node)

    @precondition(lambda self: any(self.host.outbox.values()))
    @rule(index=indices, fate=fates)
    def order_is_sent(self, index: int, fate: Fate) -> None:
        owed = [node for node, orders in self.host.outbox.items() if orders]
        self._send_order(owed[index % len(owed)], fate)

    def _run(self, task_id: TaskId, node: str, order: Fate, report: Fate) -> None:
        """The usual way of a task up to `running`, as far as its messages arrive."""
        self.host.assign(task_id, node)
        self._send_order(node, order)
        self.runners[node].move((task_id, self.host.tasks[task_id].attempt.number), S.RUNNING)
        self._send_reports(node, report)

    def _send_order(self, node: str, fate: Fate) -> None:
        """Only the oldest that is not acknowledged is on its way, so orders arrive in ascending order."""
        for order in self.host.outbox[node][:1]:
            self._send((node, False, order), fate)

    @precondition(lambda self: any(runner.outbox for runner in self.runners.values()))
    @rule(index=indices, fate=fates)
    def reports_are_sent(self, index: int, fate: Fate) -> None:
        owed = [node for node, runner in self.runners.items() if runner.outbox]
        self._send_reports(owed[index % len(owed)], fate)

    def _send_reports(self, node: str, fate: Fate) -> None:
        if self.runners[node].outbox:
            self._send((node, True, Reports(tuple(self.runners[node].outbox))), fate)

    @rule(node=nodes, fate=fates)
    def beat_is_sent(self, node: str, fate: Fate) -> None:
        self._send((node, True, self.runners[node].beat()), fate)

    @precondition(lambda self: self.network)
    @rule(index=indices)
    def late_message_arrives(self, index: int) -> None:
        answer = self._arrive(self.network.pop(index % len(self.network)))
        if answer is not None:
            self._arrive(answer)

    @precondition(lambda self: any(runner.held for runner in self.runners.values()))
    @rule(index=indices, state=st.sampled_from([S.RUNNING, S.RUNNING, S.PAUSED, S.COMPLETED, S.FAILED]))
    def workload_moves_on(self, index: int, state: TaskState) -> None:
        moves = [
            (runner, key, state if now is not S.ASSIGNING else S.RUNNING)
            for runner in self.runners.values()
            for key, now in runner.alive().items()
            if now is not state and (now is not S.PAUSED or state is S.RUNNING)
        ]
        if moves:
            runner, key, to = moves[index % len(moves)]
            runner.move(key, to)

    @rule(node=nodes)
    def node_falls_silent(self, node: str) -> None:
        self.host.falls_silent(node)

    @rule(node=nodes)
    def runner_restarts(self, node: str) -> None:
        self._reboot(node)

    @rule(node=nodes)
    def runner_loses_all(self, node: str) -> None:
        """A new disk under an old name; its old connections are gone. Nothing may be on its way twice."""
        if not self.host.outbox[node]:
            self.network = [message for message in self.network if message[0] != node]
            self.runners[node].lose_all()
            self._reboot(node)

    @invariant()
    def no_attempt_starts_twice(self) -> None:
        assert len(set(self.started)) == len(self.started)

    @invariant()
    def what_the_host_gave_up_was_not_alive(self) -> None:
        """A node that is not silent never loses a live workload to a message that came late."""
        for runner in self.runners.values():
            for task_id, attempt in runner.alive():
                task = self.host.tasks[task_id]
                if task.attempt.number == attempt and task.state is S.FAILED:
                    assert "vanished" not in (task.error_message or "")
                if task.attempt.number == attempt and task.state is S.PENDING:
                    assert "lost the order" not in (task.error_message or "")

    def teardown(self) -> None:
        """Once messages arrive again, both sides hold the same attempts in the same states."""
        self.network = []
        for _ in range(3):
            for node, runner in self.runners.items():
                for order in list(self.host.outbox[node]):
                    self._send((node, False, order), Fate.ARRIVES)
                for key, state in runner.alive().items():
                    if state is S.ASSIGNING:
                        runner.move(key, S.RUNNING)
                self._send((node, True, Reports(tuple(runner.outbox))), Fate.ARRIVES)
                self._send((node, True, runner.beat()), Fate.ARRIVES)
        for node, runner in self.runners.items():
            known = {
                (task.id, task.attempt.number): task.state
                for task in self.host.tasks.values()
                if task.assigned_node == node and task.state in HOLDING
            }
            assert runner.alive() == known
            assert self.host.open[node]
        self.no_attempt_starts_twice()

    def _reboot(self, node: str) -> None:
        runner = self.runners[node]
        runner.boot, runner.beats = runner.boot + 1, 0
        self.host.registered(node, runner.boot)

    def _send(self, message: Message, fate: Fate) -> None:
        """A message that is lost is one that never arrives late."""
        if fate in (Fate.LATE, Fate.REPEATED):
            self.network.append(message)
        answer = None if fate is Fate.LATE else self._arrive(message)
        if answer is not None and fate is Fate.ANSWER_LATE:
            self.network.append(answer)
        elif answer is not None and fate is not Fate.ANSWER_LOST:
            self._arrive(answer)

    def _arrive(self, message: Message) -> Message | None:
        """Hand a message over and return the answer, still to be sent."""
        node, to_host, content = message
        answer = self.host.receive(node, content) if to_host else self.runners[node].receive(content)
        return None if answer is None else (node, not to_host, answer)


TestReconcile = ReconcileMachine.TestCase
TestReconcile.settings = settings(max_examples=600, stateful_step_count=40, deadline=None)
