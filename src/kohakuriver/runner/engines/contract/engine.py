"""The contract between the agent and what runs workloads (Docker, QEMU, the fake of the tests).

Rules that every engine keeps, and that `tests/contract` checks on each:

- A workload belongs to the engine, not to this process: killing the runner leaves it running, and a new
  process finds it again with `list_workloads`.
- `create` and `remove` may be repeated; `start` starts the command at most once however often it is called.
- `wait` returns only when every byte of output stands in the two files; repeated after a crash, it completes
  the files without losing or repeating a byte.
- Only what carries our labels and this node's name is touched.
- Errors: `EngineFault` for what the engine refused, `Unavailable` when it does not answer; with a sentence.
- What is not among its `abilities` is refused with `SwitchedOff` and their sentence, also by `create` of a
  workload that needs it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol

from kohakuriver.models.ids import TaskId
from kohakuriver.runner.engines.contract.abilities import EngineAbilities
from kohakuriver.runner.engines.contract.files import WorkloadFiles
from kohakuriver.runner.engines.contract.inputs import Inputs
from kohakuriver.runner.engines.contract.ports import Ports
from kohakuriver.runner.engines.contract.processes import Processes
from kohakuriver.runner.engines.contract.spec import WorkloadSpec
from kohakuriver.runner.engines.contract.vps import VpsOperations


class WorkloadState(Enum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class FoundWorkload:
    """A workload that the engine holds, as its labels tell."""

    task_id: TaskId
    attempt: int
    state: WorkloadState


@dataclass(frozen=True, slots=True)
class OrphanWorkload:
    """A workload of our cluster under another node's name, with what it takes of the machine.

    `gpu_uuids`: those that it was given; `all_amd`: it has every AMD card. `names_cluster` False: an earlier
    version made it, so that it may be another cluster's.
    """

    node: str
    task_id: TaskId
    attempt: int
    state: WorkloadState
    cores: int = 0
    memory_bytes: int = 0
    gpu_uuids: tuple[str, ...] = ()
    all_amd: bool = False
    names_cluster: bool = True


@dataclass(frozen=True, slots=True)
class ExitResult:
    """How a workload ended. `oom_killed`: the OOM killer ended a process in it, whether
    its first one, another, or one whose end it outlived.

    `lost_to_system`: the command did not end by itself, the engine or the node was restarted under it.
    """

    exit_code: int
    oom_killed: bool
    started_at: datetime
    finished_at: datetime
    stdout_bytes: int
    stderr_bytes: int
    error: str | None = None
    lost_to_system: bool = False


class Engine(Protocol):
    """See the rules at the head of this file. `attempt` fences: a call for another attempt is EngineFault."""

    async def open(self) -> None:
        """Bring networks and pool to the desired state; raises InvalidInput for settings that cannot work."""

    async def close(self) -> None:
        """Let go of connections; workloads stay. What is kept ready (idle sandboxes) is removed."""

    async def create(self, spec: WorkloadSpec, on_progress: Callable[[str], None]) -> str | None:
        """Provide all that it needs and make it, not yet started. An existing one of this attempt is kept.

        Returns the digest of its image where it knows one.
        """

    async def start(self, task_id: TaskId, attempt: int) -> datetime:
        """Start the command unless it was started before; return when it was (aware UTC)."""

    async def wait(self, spec: WorkloadSpec) -> ExitResult:
        """Wait for the end while copying output; raises NotFound if the workload vanished."""

    async def stop(self, task_id: TaskId, attempt: int, grace_seconds: float) -> None:
        """End the workload: SIGTERM to all its processes, and to those that are left after the grace SIGKILL.

        Those that have ended by then end none of the others early. A paused workload is thawed first.
        """

    async def pause(self, task_id: TaskId, attempt: int) -> None: ...

    async def resume(self, task_id: TaskId, attempt: int) -> None: ...

    async def remove(self, task_id: TaskId, attempt: int) -> None:
        """Give back everything it used; free if nothing is there. `attempt` 0 removes any."""

    async def list_workloads(self) -> list[FoundWorkload]: ...

    def orphans(self) -> list[OrphanWorkload]:
        """What was found of our cluster under other nodes' names, and runs; it is left alone."""

    async def take_over(self, nodes: Iterable[str]) -> list[FoundWorkload]:
        """Have what stands under these nodes' names as ours, for ever; return the workloads among it."""

    def faults(self) -> list[str]:
        """Sentences about what does not work now; empty when all is well."""

    @property
    def abilities(self) -> EngineAbilities:
        """They never change. What belongs to one that is lacking may raise as soon as it is named."""

    @property
    def vps(self) -> VpsOperations:
        """What is done with workloads that are VPSs, beyond the above."""

    @property
    def inputs(self) -> Inputs:
        """Standard input of workloads."""

    @property
    def processes(self) -> Processes:
        """Further processes inside running workloads."""

    @property
    def files(self) -> WorkloadFiles:
        """Files in running workloads."""

    @property
    def ports(self) -> Ports:
        """Connections to what listens in running workloads."""
