"""What can happen to a model cluster: what users do, what workloads do, and what goes wrong. Each event is a
value, so that a history can be printed and played again; one that is impossible just then does nothing."""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from hypothesis import strategies as st

from kohakuriver.host.store.store import DiskFault
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.tasks import TaskSpec
from kohakuriver.runner.engines.contract.engine import WorkloadState
from support.model.cluster import NODES, REFUSED, ModelCluster
from support.model.host import SILENCE_SECONDS
from support.model.lossy_network import Fate
from support.runner.machine_engine import Dead

MAX_LIVE = 6
GIB = 1 << 30


class Work(Enum):
    """Kinds of tasks that users submit."""

    PLAIN = TaskSpec("true")
    WHOLE_NODE = TaskSpec("true", required_cores=2)
    MEMORY = TaskSpec("true", required_cores=0, required_memory_bytes=3 * GIB)
    GPU = TaskSpec("true", required_gpus=(0,))
    BOTH_GPUS = TaskSpec("true", required_cores=0, target=Target("n1", None, (0, 1)))
    ON_N2 = TaskSpec("true", target=Target("n2"))
    BADLY_MADE = TaskSpec("true", env_vars=((REFUSED, ""),))
    ON_N1 = TaskSpec("true", target=Target("n1"))
    RETRIED = TaskSpec("true", retries=1)
    RETRIED_ON_N2 = TaskSpec("true", required_cores=0, retries=3, target=Target("n2"))
    OFTEN_RETRIED = TaskSpec("true", required_gpus=(1,), retries=3)


class Request(Enum):
    """What users want of a task that is there."""

    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    APPROVE = "approve"


@dataclass(frozen=True)
class Submit:
    work: Work
    needs_approval: bool = False

    def happen(self, cluster: ModelCluster) -> None:
        if len(cluster.live_tasks()) < MAX_LIVE:
            cluster.submit(self.work.value, needs_approval=self.needs_approval)


@dataclass(frozen=True)
class Ask:
    request: Request
    which: int

    def happen(self, cluster: ModelCluster) -> None:
        control, tasks = cluster.host.control, cluster.live_tasks()
        if control is None or not tasks:
            return
        task_id = tasks[self.which % len(tasks)].id
        match self.request:
            case Request.KILL:
                cluster.kill(task_id)
            case Request.PAUSE:
                cluster.ask(control.tasks.pause(task_id))
            case Request.RESUME:
                cluster.ask(control.tasks.resume(task_id))
            case Request.APPROVE:
                cluster.ask(control.tasks.approve(task_id, "olga"))


@dataclass(frozen=True)
class Finish:
    """A command ends by itself."""

    which: int
    exit_code: int

    def happen(self, cluster: ModelCluster) -> None:
        running = cluster.workloads(WorkloadState.RUNNING)
        if running:
            cluster.finish(*running[self.which % len(running)], self.exit_code)


@dataclass(frozen=True)
class Drain:
    """`move` None: the node is opened again."""

    node: str
    move: bool | None

    def happen(self, cluster: ModelCluster) -> None:
        control = cluster.host.control
        if control is not None and self.move is None:
            cluster.ask(control.nodes.undrain(self.node))
        elif control is not None:
            cluster.ask(control.nodes.drain(self.node, bool(self.move), "olga"))


@dataclass(frozen=True)
class Astray:
    """The next orders to a node, and the next requests from it, have these fates."""

    node: str
    orders: tuple[Fate, ...]
    requests: tuple[Fate, ...]

    def happen(self, cluster: ModelCluster) -> None:
        cluster.network.fates[self.node, False] = deque(self.orders)
        cluster.network.fates[self.node, True] = deque(self.requests)


@dataclass(frozen=True)
class LateMessage:
    """One of those that the network holds back arrives."""

    which: int = 0

    def happen(self, cluster: ModelCluster) -> None:
        if cluster.network.late:
            cluster.network.let_go(self.which)
            cluster.loop.settle()


@dataclass(frozen=True)
class Pause:
    """Time in which all that happened works itself out."""

    seconds: float

    def happen(self, cluster: ModelCluster) -> None:
        cluster.loop.advance(self.seconds)


@dataclass(frozen=True)
class Cut:
    node: str
    to_host: bool = True
    from_host: bool = True

    def happen(self, cluster: ModelCluster) -> None:
        cluster.network.cut.update((self.node, way) for way in (True, False) if self._cuts(way))

    def _cuts(self, to_host: bool) -> bool:
        return self.to_host if to_host else self.from_host


@dataclass(frozen=True)
class Mend:
    def happen(self, cluster: ModelCluster) -> None:
        cluster.network.cut.clear()


@dataclass(frozen=True)
class RunnerDies:
    """By kill -9, or with its machine. `back`: at once, and perhaps it dies again at that step."""

    node: str
    power: bool = False
    back: bool = True
    dies_at: int | None = None

    def happen(self, cluster: ModelCluster) -> None:
        runner = cluster.runners[self.node]
        if self.power:
            runner.lose_power()
        else:
            runner.kill()
        if self.back:
            runner.start(self.dies_at)


@dataclass(frozen=True)
class EverythingComesBack:
    """Processes that are dead are started; the clock of the host's machine may have been set meanwhile."""

    clock_jump_seconds: int = 0

    def happen(self, cluster: ModelCluster) -> None:
        if cluster.host.control is None:
            cluster.host.clock.offset_seconds += self.clock_jump_seconds
            cluster.host.start()
        for runner in cluster.runners.values():
            if not runner.alive:
                runner.start()


@dataclass(frozen=True)
class HostDies:
    """Now (None), or before or after its next commit."""

    before_commit: bool | None = None
    back: bool = True

    def happen(self, cluster: ModelCluster) -> None:
        if self.before_commit is not None:
            cluster.host.store.fail_writes(Dead("write"), 1, after=not self.before_commit)
            return
        cluster.host.kill()
        if self.back:
            cluster.host.start()


@dataclass(frozen=True)
class DiskFull:
    """So many writes fail; of a runner's, what was written may stand there all the same."""

    node: str | None
    writes: int
    kept: bool = False

    def happen(self, cluster: ModelCluster) -> None:
        if self.node is None:
            cluster.host.store.fail_writes(DiskFault("the disk is full"), self.writes)
        else:
            disk = cluster.runners[self.node].disk
            disk.full, disk.keeps_what_failed = self.writes, self.kept


Event = (
    Submit
    | Ask
    | Finish
    | Drain
    | Astray
    | LateMessage
    | Pause
    | Cut
    | Mend
    | RunnerDies
    | EverythingComesBack
    | HostDies
    | DiskFull
)

_nodes = st.sampled_from(NODES)
_whichever = st.integers(0, 5)
_fates = st.lists(st.sampled_from(Fate), max_size=5).map(tuple)

PAUSES: st.SearchStrategy[Event] = st.builds(
    Pause, st.sampled_from([0.0, 3.0, 12.0, SILENCE_SECONDS, SILENCE_SECONDS])
)
LATE_MESSAGES: st.SearchStrategy[Event] = st.builds(LateMessage, _whichever)

ACTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Submit, st.sampled_from(Work)),
    st.builds(Submit, st.sampled_from(Work)),
    st.builds(Submit, st.sampled_from(Work), st.booleans()),
    st.builds(Ask, st.sampled_from(Request), _whichever),
    st.builds(Finish, _whichever, st.integers(0, 2)),
)

FAULTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Astray, _nodes, _fates, _fates),
    st.builds(Astray, _nodes, _fates, st.just(())),
    st.builds(Cut, _nodes, st.booleans(), st.booleans()),
    st.builds(Cut, _nodes, st.just(True), st.just(True)),
    st.builds(Mend),
    st.builds(Mend),
    st.builds(RunnerDies, _nodes, st.sampled_from([False, False, False, True]), st.booleans()),
    st.builds(RunnerDies, _nodes, st.just(False), st.just(True), st.integers(1, 30)),
    st.builds(EverythingComesBack, st.sampled_from([0, 0, 3600, -3600])),
    st.builds(EverythingComesBack),
    st.builds(HostDies, st.none() | st.booleans(), st.booleans()),
    st.builds(DiskFull, st.none() | _nodes, st.integers(1, 4), st.booleans()),
    st.builds(Drain, _nodes, st.none() | st.booleans()),
)
