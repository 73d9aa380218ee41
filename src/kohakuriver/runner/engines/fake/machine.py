"""The machine under the fake engine: what "runs" on it goes on while no engine object looks.

Time is the monotonic clock and nothing has a task of its own, so any number of workloads costs nothing.
Commands, by argument vector: `true`; `sleep SECONDS`; `exit STATUS`; `print TEXT` (stdout) and
`complain TEXT` (stderr); `stubborn SECONDS` (says so and ignores SIGTERM); `oom` (ended by the memory
killer); `suicide` (SIGKILL by its own hand); `missing` (cannot be started). Any other command is like `true`.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.base import WorkloadSpec, WorkloadState

_KILLED = 137
_TERMINATED = 143


@dataclass(slots=True)
class FakeWorkload:
    spec: WorkloadSpec
    starts: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
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
        """Until it ends by itself; None while it is frozen."""
        return None if self._left_when_paused is not None else max(self._ends - time.monotonic(), 0.0)

    def start(self) -> None:
        self.starts += 1
        self.started_at = datetime.now(UTC)
        seconds, argument = 0.0, "".join(self.spec.argv[1:2])
        match self.spec.argv[0]:
            case "sleep":
                seconds = float(argument)
            case "stubborn":
                seconds, self.stdout = float(argument), b"deaf\n"
            case "suicide":
                self.exit_code = _KILLED
            case "exit":
                self.exit_code = int(argument)
            case "print":
                self.stdout = argument.encode()
            case "complain":
                self.stderr = argument.encode()
            case "oom":
                self.exit_code, self.oom_killed = _KILLED, True
        self._ends = time.monotonic() + seconds

    def terminate(self) -> None:
        """SIGTERM, and SIGKILL for what ignores it."""
        self._end(_KILLED if self.spec.argv[0] == "stubborn" else _TERMINATED)

    def kill(self) -> None:
        self._end(_KILLED)

    def pause(self) -> None:
        self._left_when_paused = self.seconds_left
        self._touch()

    def resume(self) -> None:
        if self._left_when_paused is not None:
            self._ends, self._left_when_paused = time.monotonic() + self._left_when_paused, None
            self._touch()

    def _end(self, exit_code: int) -> None:
        self.exit_code = exit_code
        late = timedelta(seconds=max(time.monotonic() - self._ends, 0.0))
        self.finished_at = datetime.now(UTC) - late
        self._left_when_paused = None
        self._touch()

    def _touch(self) -> None:
        """Wake everybody who waits for a change; they wait for the next one anew."""
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(slots=True)
class FakeMachine:
    """Share one between engine objects to play a restart of the runner."""

    workloads: dict[TaskId, FakeWorkload] = field(default_factory=dict)
