"""The contract between the agent and what runs workloads (Docker, QEMU, the fake of the tests).

Rules that every engine keeps, and that `tests/contract` checks on each:

- A workload belongs to the engine, not to this process: killing the runner leaves it running, and a new
  process finds it again with `list_workloads`.
- `create` and `remove` may be repeated; `start` starts the command at most once however often it is called.
- `wait` returns only when every byte of output stands in the two files; repeated after a crash, it completes
  the files without losing or repeating a byte.
- Only what carries our labels and this node's name is touched.
- Errors: `EngineFault` for what the engine refused, `Unavailable` when it does not answer; with a sentence.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Protocol

from kohakuriver.models.cores import Cores
from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.errors import EngineFault
from kohakuriver.models.ids import TaskId
from kohakuriver.models.resources import Gpu
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS
from kohakuriver.runner.engines.contract.files import WorkloadFiles
from kohakuriver.runner.engines.contract.inputs import Inputs
from kohakuriver.runner.engines.contract.processes import Processes
from kohakuriver.runner.engines.contract.vps import Sessions, SessionSetup


@dataclass(frozen=True, slots=True)
class ImageChoice:
    """Exactly one is set: an environment of the shared storage, or an image of a registry.

    `pull`: whether the registry is asked for the latter.
    """

    environment: str | None = None
    registry_image: str | None = None
    pull: PullPolicy = PullPolicy.MISSING


@dataclass(frozen=True, slots=True)
class ReadyImage:
    """An image on this node. `id`: to create containers from.

    `digest`: what the registry calls this content; the id where the image came from none.
    """

    id: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class UserIds:
    """Numeric user, group and further groups of the command inside the container.

    `name`: what the node calls the user, and `group_names` some of the groups; the image may know neither.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    name: str = ""
    group_names: tuple[tuple[int, str], ...] = ()

    @property
    def account(self) -> str:
        """The name that it has in a container."""
        return self.name or f"user{self.uid}"

    @property
    def home(self) -> str:
        """Where its home folder is in a container, whatever the node or the image has there."""
        return f"/home/{self.account}"


@dataclass(frozen=True, slots=True)
class CpuBinding:
    """CPUs and memory nodes that a workload is pinned to; always set together."""

    cpus: tuple[int, ...]
    memory_nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """Everything an engine needs to run one attempt; complete, checked, and free of settings look-ups.

    `cores` 0: no CPU limit; `memory_bytes` 0: no memory limit. `env` is in the order of setting.
    `output_starts`: folders of the administrator's choice that output lies in; below them, and on the whole
    way of what lies in none of them, no link is followed.
    """

    task_id: TaskId
    attempt: int
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    image: ImageChoice
    cores: Cores
    memory_bytes: int
    binding: CpuBinding | None
    gpus: tuple[Gpu, ...]
    working_dir: str
    user: UserIds
    mounts: tuple[Mount, ...]
    privileged: bool
    stdout_path: Path
    stderr_path: Path
    pids_limit: int = 0
    """Of processes and threads together; 0: no limit."""
    output_starts: tuple[Path, ...] = ()
    capabilities: tuple[str, ...] = ()
    """What it gets beyond the rights of every workload; names as in `models.capabilities`."""
    options: ContainerOptions = field(default_factory=ContainerOptions)
    """As `checked_options` gives them, and complete: what was left to the node is filled in."""
    image_command: bool = False
    """`argv` are arguments for what the image says is to run, with its user where `user` is root."""
    image_folder: bool = False
    """Begin in the working directory of the image, if it names one."""
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """What its processes are given between SIGTERM and SIGKILL when it is ended from outside."""
    stdin: bytes | None = field(repr=False, default=None)
    """What the agent writes to its standard input by `inputs`; None: it reads an end of file."""
    stdin_streams: bool = False
    """Its input comes while it runs, in place of `stdin`."""
    script: bytes | None = field(repr=False, default=None)
    """A program that lies at `models.task_files.SCRIPT_PLACE`, which `argv` begins with."""
    session: SessionSetup | None = None
    """None: a command task. A session's first process is the engine's own, whatever `argv` says."""

    @property
    def has_input(self) -> bool:
        return self.stdin is not None or self.stdin_streams


class NodeFault(EngineFault):
    """The node's own doing and not the task's: another node may well do the same work."""


class LostByEngine(EngineFault):
    """The engine lost the workload while it started it; whether the command has run is not known."""


class RegistryAway(EngineFault):
    """A registry did not give the image in the time there was; another try later may fare better."""


class ImageProvider(Protocol):
    """What brings images onto this node; `runner.images` implements it."""

    async def ensure(self, image: ImageChoice, on_progress: Callable[[str], None]) -> ReadyImage:
        """Make sure that the current image is here."""


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
class LeftWorkload:
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
    """How a workload ended. `oom_killed`: the kernel's memory killer ended a process in it, be it
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
        """Provide image, network and container, not yet started. An existing one of this attempt is kept.

        Returns the digest of the image where it knows one.
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
        """Give back everything it used; free if nothing is there. `attempt` None-like 0 removes any."""

    async def list_workloads(self) -> list[FoundWorkload]: ...

    def leftovers(self) -> list[LeftWorkload]:
        """What was found of our cluster under other nodes' names, and runs; it is left alone."""

    async def take_over(self, nodes: Iterable[str]) -> list[FoundWorkload]:
        """Have what stands under these nodes' names as ours, for ever; return the workloads among it."""

    async def prefetch(self, image: ImageChoice, on_progress: Callable[[str], None]) -> None:
        """Bring the current image onto this node; one sync per image at a time."""

    def faults(self) -> list[str]:
        """Sentences about what does not work now; empty when all is well."""

    @property
    def sessions(self) -> Sessions:
        """What is done with workloads that are persistent sessions, beyond the above."""

    @property
    def inputs(self) -> Inputs:
        """Standard input of workloads."""

    @property
    def processes(self) -> Processes:
        """Further processes inside running workloads."""

    @property
    def files(self) -> WorkloadFiles:
        """Files in running workloads."""
