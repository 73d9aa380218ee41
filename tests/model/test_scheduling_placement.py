"""Placement over many passes against the policy written in the plainest way, with the ledger checked after
each step: memory of earlier passes must never change a decision."""

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kohakuriver.models.abilities import Ability
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.resources import Demand, Usage, shortage
from kohakuriver.models.spec.targets import Target
from kohakuriver.scheduling.explain import FITS, explain, never_fits
from kohakuriver.scheduling.nodes import NodeTable
from kohakuriver.scheduling.placement import STARVATION_SECONDS, Placement, Placements, place
from kohakuriver.scheduling.queue import QueuedTask, TaskQueue
from support.scheduling.values import FLYING, GIB, NOW, SHARED, node

NAMES = ("n1", "n2", "n3", "n4")
indices = st.integers(0, 10**6)
names = st.sampled_from(NAMES)
abilities = st.sampled_from([frozenset[Ability](), SHARED, frozenset({FLYING}), SHARED | {FLYING}])
untargeted = st.builds(
    Demand,
    cores=st.integers(0, 5),
    memory_bytes=st.integers(0, 6).map(lambda number: number * GIB),
    needs=abilities,
    avoid=st.none() | st.none() | names,
)
targeted = st.builds(
    lambda name, numa, gpus, cores: Demand(cores, 0, Target(name, numa, gpus), gpus),
    names,
    st.none() | st.integers(0, 1),
    st.lists(st.integers(0, 1), unique=True, max_size=2).map(tuple),
    st.integers(0, 4),
)


def plain_pass(waiting: list[QueuedTask], table: NodeTable, reserved: dict[TaskId, str]) -> list[Placement]:
    """The policy without any shortcut; which nodes are reserved is given."""
    views = {view.name: view for view in table}
    placed, blocked = [], set()

    def take(name: str, demand: Demand) -> None:
        views[name].usage.take(demand)

    for task in sorted(waiting, key=lambda task: (-task.priority, task.task_id)):
        if task.demand in blocked:
            continue
        target = task.demand.target
        able = [
            view
            for view in views.values()
            if (target is None or view.name == target.hostname) and view.obstacle(task.demand) is None
        ]
        if able:
            avoided = task.demand.avoid
            best = min(able, key=lambda view: (view.name == avoided, view.order_key)).name
            take(best, task.demand)
            placed.append(Placement(task.task_id, best))
            continue
        blocked.add(task.demand)
        if task.task_id in reserved:
            take(reserved[task.task_id], task.demand)
    return placed


class PlacementMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.queue = NodeTable(), TaskQueue()
        self.running: dict[TaskId, tuple[QueuedTask, str]] = {}
        self.vps_ids: set[TaskId] = set()
        self.waiting: dict[TaskId, QueuedTask] = {}
        self.now = NOW
        self.last_id = 0

    @initialize()
    def two_nodes(self) -> None:
        self.table.put(node("n1", cores=2))
        self.table.put(node("n2", cores=4, gpus=2))

    @rule(
        name=names,
        cores=st.integers(1, 6),
        gpus=st.integers(0, 2),
        offers=abilities,
        closed=st.booleans(),
    )
    def node_joins(self, name: str, cores: int, gpus: int, offers: frozenset[Ability], closed: bool) -> None:
        if not any(where == name for _, where in self.running.values()):
            self.table.put(node(name, cores, gpus, "is draining" if closed else "", offers=offers))

    @rule(name=names, offers=abilities)
    def node_gains_or_loses_abilities(self, name: str, offers: frozenset[Ability]) -> None:
        if name in self.table:
            self.table.put(changed(self.table.view(name), offers=offers))

    @rule(name=names, reason=st.sampled_from(["", "is offline"]))
    def node_opens_or_closes(self, name: str, reason: str) -> None:
        if name in self.table:
            self.table.set_status(name, reason)

    @rule(name=names)
    def node_leaves(self, name: str) -> None:
        self.table.remove(name)
        self.running = {key: entry for key, entry in self.running.items() if entry[1] != name}

    @rule(
        demand=untargeted | targeted,
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        number=st.integers(1, 4),
        is_vps=st.sampled_from([False, False, True]),
    )
    def submit(self, demand: Demand, priority: int, number: int, is_vps: bool) -> None:
        for _ in range(number):
            self.last_id += 1
            if is_vps:
                self.vps_ids.add(TaskId(self.last_id))
            self._wait(QueuedTask(TaskId(self.last_id), demand, self.now, priority))

    @precondition(lambda self: self.waiting)
    @rule(index=indices)
    def kill_a_waiting_one(self, index: int) -> None:
        task_id = list(self.waiting)[index % len(self.waiting)]
        del self.waiting[task_id]
        self.queue.remove(task_id)

    @precondition(lambda self: self.running)
    @rule(index=indices, again=st.booleans())
    def one_ends_or_is_put_back(self, index: int, again: bool) -> None:
        task, where = self.running.pop(list(self.running)[index % len(self.running)])
        self.table.give_back(where, task.demand, lasting=task.task_id in self.vps_ids)
        if again:
            self._wait(task)

    @rule(seconds=st.sampled_from([1, STARVATION_SECONDS / 2, STARVATION_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(committed=st.sampled_from([0, 1, 2, 1000]))
    def schedule(self, committed: int) -> None:
        result = place(self.queue, self.table, self.now)
        self._check_reservations(result)
        reserved = {item.task_id: item.node for item in result.reserved}
        assert list(result.placed) == plain_pass(list(self.waiting.values()), self.table, reserved)
        for placement in result.placed[:committed]:
            task = self.waiting.pop(placement.task_id)
            assert self.table.view(placement.node).obstacle(task.demand) is None
            self.table.take(placement.node, task.demand, lasting=task.task_id in self.vps_ids)
            self.queue.remove(task.task_id)
            self.running[task.task_id] = (task, placement.node)

    def _check_reservations(self, result: Placements) -> None:
        for item in result.reserved:
            task, view = self.waiting[item.task_id], self.table.view(item.node)
            assert self.now - task.queued_at > timedelta(seconds=STARVATION_SECONDS)
            assert view.accepts_work
            assert view.could_hold(task.demand)
            # What is given out to VPSs does not come free, however long the task waits.
            assert shortage(task.demand, view.capacity, self._held_by_vps(item.node)) is None
            assert task.demand.target is None or task.demand.target.hostname == item.node

    def _held_by_vps(self, name: str) -> Usage:
        held = Usage()
        for task, where in self.running.values():
            if where == name and task.task_id in self.vps_ids:
                held.take(task.demand)
        return held

    def _wait(self, task: QueuedTask) -> None:
        self.waiting[task.task_id] = task
        self.queue.add(task)

    @invariant()
    def the_ledger_is_the_sum_of_what_runs_and_within_capacity(self) -> None:
        expected = {view.name: Usage() for view in self.table}
        for task, where in self.running.values():
            assert shortage(task.demand, self.table.view(where).capacity, expected[where]) is None
            expected[where].take(task.demand)
        assert {view.name: view.usage for view in self.table} == expected
        assert all(view.standing == self._held_by_vps(view.name) for view in self.table)

    @invariant()
    def the_order_of_nodes_is_kept(self) -> None:
        assert self.table.order() == sorted(view.order_key for view in self.table)

    @invariant()
    def an_explanation_agrees_with_the_ledger(self) -> None:
        for task in self.waiting.values():
            for name, reason in explain(task.demand, self.table):
                fits = name in self.table and self.table.view(name).obstacle(task.demand) is None
                assert fits == (reason == FITS)

    def teardown(self) -> None:
        """Every task that an open node could hold beside its VPSs, which stay, is placed in the end,
        whatever keeps coming behind it."""
        for task_id in self.vps_ids.intersection(self.waiting):
            del self.waiting[task_id]
            self.queue.remove(task_id)
        feasible = {
            task_id
            for task_id, task in self.waiting.items()
            if any(
                view.accepts_work
                and view.could_hold(task.demand)
                and shortage(task.demand, view.capacity, self._held_by_vps(view.name)) is None
                for view in self.table
                if task.demand.target is None or view.name == task.demand.target.hostname
            )
        }
        assert all(never_fits(self.waiting[task_id].demand, self.table) is None for task_id in feasible)
        # One ends each time, the oldest first: a task waits for all that run before one like it, and no more
        # run than there are cores, beside those that take none.
        cores = sum(view.capacity.cores for view in self.table)
        for _ in range((len(feasible) + 1) * (len(self.waiting) + len(self.running) + cores + 3)):
            if feasible.isdisjoint(self.waiting):
                return
            self.now += timedelta(seconds=STARVATION_SECONDS)
            self.submit(Demand(cores=1), -2, 2, is_vps=False)
            ending = [index for index, key in enumerate(self.running) if key not in self.vps_ids]
            if ending:
                self.one_ends_or_is_put_back(ending[0], again=False)
            self.schedule(committed=1000)
        assert feasible.isdisjoint(self.waiting)


TestPlacement = PlacementMachine.TestCase
TestPlacement.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
