"""What an engine is told about a workload that it is to make: one complete value, checked by who built it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from kohakuriver.models.enums import PullPolicy
from kohakuriver.models.ids import TaskId
from kohakuriver.models.resources import Gpu
from kohakuriver.models.spec.amounts import Cores
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.models.spec.mounts import Mount
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS
from kohakuriver.runner.engines.contract.vps import VpsSetup

DOCKER = "docker"
"""The engine of what names none: earlier versions had no other."""


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


class ImageProvider(Protocol):
    """What brings images onto this node; `runner.images` implements it."""

    async def ensure(self, image: ImageChoice, on_progress: Callable[[str], None]) -> ReadyImage:
        """Make sure that the current image is here."""


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


class ContainerBody(msgspec.Struct, frozen=True, tag="container"):
    """What a container is made of. The journal has its tag, which tells it from other kinds of body."""

    image: ImageChoice
    privileged: bool = False
    capabilities: tuple[str, ...] = ()
    """What it gets beyond the rights of every workload; names as in `models.spec.capabilities`."""
    options: ContainerOptions = ContainerOptions()
    """As `checked_options` gives them, and complete: what was left to the node is filled in."""
    pids_limit: int = 0
    """Of processes and threads together; 0: no limit."""
    image_command: bool = False
    """`argv` are arguments for what the image says is to run, with its user where `user` is root."""
    image_folder: bool = False
    """Begin in the working directory of the image, if it names one."""


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """Everything an engine needs to run one attempt; complete, checked, and free of settings look-ups.

    All of it is what engines share, save the `body`, which is for the one that is named.
    `cores` 0: no CPU limit; `memory_bytes` 0: no memory limit. `env` is in the order of setting.
    `output_starts`: folders of the administrator's choice that output lies in; below them, and on the whole
    way of what lies in none of them, no link is followed.
    """

    task_id: TaskId
    attempt: int
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cores: Cores
    memory_bytes: int
    binding: CpuBinding | None
    gpus: tuple[Gpu, ...]
    working_dir: str
    user: UserIds
    mounts: tuple[Mount, ...]
    stdout_path: Path
    stderr_path: Path
    body: ContainerBody
    engine: str = DOCKER
    output_starts: tuple[Path, ...] = ()
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """What its processes are given between SIGTERM and SIGKILL when it is ended from outside."""
    stdin: bytes | None = field(repr=False, default=None)
    """What the agent writes to its standard input by `inputs`; None: it reads an end of file."""
    stdin_streams: bool = False
    """Its input comes while it runs, in place of `stdin`."""
    script: bytes | None = field(repr=False, default=None)
    """A program that lies at `models.spec.task_files.SCRIPT_PLACE`, which `argv` begins with."""
    session: VpsSetup | None = None
    """None: a command task. A VPS's first process is the engine's own, whatever `argv` says."""

    @property
    def has_input(self) -> bool:
        return self.stdin is not None or self.stdin_streams
