"""The machine under the fake engine: what "runs" on it goes on while no engine object looks.

Time is the monotonic clock and nothing has a task of its own, so any number of workloads costs nothing.
Commands, by argument vector: `true`; `sleep SECONDS`; `exit STATUS`; `print TEXT` (stdout) and
`complain TEXT` (stderr); `cat` (its input); `stubborn SECONDS` (says so and ignores SIGTERM); `pair SECONDS`
(two processes that say which signals they get); `oom` (ended by the OOM killer); `outlive STATUS` (its
child is); `suicide` (SIGKILL by its own hand); `missing` (cannot be started). Any other command is like
`true`. A VPS runs until it is ended, whatever its command says.
"""

import asyncio
import itertools
import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kohakuriver.broadcast import Broadcast
from kohakuriver.models.errors import EngineFault, NotFound
from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.engine import WorkloadState
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.tunnels.dialled_tunnel import DialledTunnel

Place = tuple[str, int]

_KILLED = 137
_TERMINATED = 143


@dataclass(slots=True)
class FakeWorkload:
    """`disk`: files of a VPS, by path; `address`: its own.

    `programs`: what runs in it beside its first process, as the files that it writes when it is told to end.
    """

    spec: WorkloadSpec
    disk: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    address: str = ""
    starts: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    input_ended: bool = False
    tunnels: list[DialledTunnel] = field(default_factory=list)
    changes: Broadcast = field(default_factory=Broadcast)
    _ends: float = 0.0
    _left_when_paused: float | None = None

    @property
    def state(self) -> WorkloadState:
        if self.started_at is None:
            return WorkloadState.CREATED
        if self.finished_at is not None:
            return WorkloadState.EXITED
        if self._left_when_paused is not None:
            return WorkloadState.PAUSED
        if time.monotonic() < self._ends:
            return WorkloadState.RUNNING
        self._end(self.exit_code)
        return WorkloadState.EXITED

    @property
    def seconds_left(self) -> float | None:
        """Until it ends by itself; None while it is frozen, and for what never does."""
        if self._left_when_paused is not None or self._ends == math.inf:
            return None
        return max(self._ends - time.monotonic(), 0.0)

    def start(self) -> None:
        self.starts += 1
        self.started_at = datetime.now(UTC)
        if self.spec.session is not None:
            self._ends = math.inf
            return
        seconds, argument = 0.0, "".join(self.spec.argv[1:2])
        match "".join(self.spec.argv[:1]):
            case "sleep":
                seconds = float(argument)
            case "stubborn":
                seconds, self.stdout = float(argument), b"deaf\n"
            case "cat" if self.spec.has_input and not self.input_ended:
                seconds = math.inf
            case "pair":
                seconds, self.stdout = float(argument), b"ready\n"
            case "suicide":
                self.exit_code = _KILLED
            case "exit":
                self.exit_code = int(argument)
            case "print":
                self.stdout = argument.encode()
            case "complain":
                self.stderr = argument.encode()
            case "outlive":
                self.exit_code, self.oom_killed = int(argument), True
            case "oom":
                self.exit_code, self.oom_killed = _KILLED, True
        self._ends = time.monotonic() + seconds

    def start_again(self) -> None:
        """Of a VPS that has ended."""
        self.finished_at, self.exit_code = None, 0
        self.start()

    def signal(self, name: str) -> None:
        """Have all its processes hear it."""
        is_stubborn = self.spec.argv[:1] == ("stubborn",) and self.spec.session is None
        if self.spec.argv[:1] == ("pair",):
            self.stdout += f"first {name}\nsecond {name}\n".encode()
        self.end_programs()
        if name == "KILL":
            self.kill()
        elif name == "TERM" and not is_stubborn:
            self._end(_TERMINATED)
        else:
            self.changes.wake_all()

    def end_programs(self) -> None:
        """Those of a VPS, which leave their last words on its disk."""
        self.disk |= self.programs
        self.programs.clear()

    def read(self, data: bytes) -> None:
        """Have it take some input."""
        if self.spec.argv[0] == "cat":
            self.stdout += data
            self.changes.wake_all()

    def end_input(self) -> None:
        self.input_ended = True
        if self.spec.argv[0] == "cat" and self.state is WorkloadState.RUNNING:
            self._end(0)

    def kill(self) -> None:
        self._end(_KILLED)

    def pause(self) -> None:
        self._left_when_paused = self._ends - time.monotonic()
        self.changes.wake_all()

    def resume(self) -> None:
        if self._left_when_paused is not None:
            self._ends, self._left_when_paused = time.monotonic() + self._left_when_paused, None
            self.changes.wake_all()

    def _end(self, exit_code: int) -> None:
        self.exit_code = exit_code
        late = timedelta(seconds=max(time.monotonic() - self._ends, 0.0))
        self.finished_at = datetime.now(UTC) - late
        self._left_when_paused = None
        self.changes.wake_all()


@dataclass(frozen=True, slots=True)
class FakeSnapshot:
    message: str
    disk: dict[str, str]


@dataclass(slots=True)
class FakeMachine:
    """Share one between engine objects to play a restart of the runner.

    `snapshots`: of each VPS, by their times. `listeners`: where a connection to a workload's port goes, and
    `udp_listeners` where its datagrams go. `of_others`: workloads under other nodes' names, by these.
    `launched`: processes without a client.
    """

    workloads: dict[TaskId, FakeWorkload] = field(default_factory=dict)
    snapshots: dict[TaskId, dict[int, FakeSnapshot]] = field(default_factory=dict)
    listeners: dict[tuple[TaskId, int], Place] = field(default_factory=dict)
    udp_listeners: dict[tuple[TaskId, int], Place] = field(default_factory=dict)
    of_others: dict[str, list[FakeWorkload]] = field(default_factory=dict)
    launched: list[asyncio.Task[None]] = field(default_factory=list)

    def free_address(self, wanted: str | None) -> str:
        """The one that is wanted, if no workload has it."""
        taken = {workload.address for workload in self.workloads.values()}
        if wanted is not None and wanted not in taken:
            return wanted
        return next(address for n in itertools.count(2) if (address := f"10.255.0.{n}") not in taken)


def find(machine: FakeMachine, task_id: TaskId, attempt: int) -> FakeWorkload:
    """Raises NotFound, or EngineFault for another attempt; `attempt` 0 is any."""
    workload = machine.workloads.get(task_id)
    if workload is None:
        raise NotFound(f"no workload of task {task_id} is here")
    check_attempt(workload, attempt)
    return workload


def check_attempt(workload: FakeWorkload, asked: int) -> None:
    if asked not in (0, workload.spec.attempt):
        raise EngineFault(
            f"task {workload.spec.task_id} is here as attempt {workload.spec.attempt}, "
            f"and the call is for attempt {asked}"
        )
