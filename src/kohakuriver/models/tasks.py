"""The record of a task: what was asked for, and where it stands. Frozen; a change makes a new record."""

from dataclasses import dataclass
from datetime import datetime

from kohakuriver.models.abilities import Ability
from kohakuriver.models.cores import Cores
from kohakuriver.models.enums import PullPolicy, TaskState, TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.resources import Demand
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.spec.task_files import TaskFile
from kohakuriver.models.transitions import ForbiddenTransition, is_permitted, steps_to
from kohakuriver.models.vps import SessionState, VpsSpec

_OF_AN_ENVIRONMENT = frozenset({Ability.SHARED_STORAGE})


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What the submitter asked for; never changes after submission.

    `command` empty: the registry image's own, with `arguments` instead of its default ones if there are any.
    """

    command: str
    arguments: tuple[str, ...] = ()
    env_vars: tuple[tuple[str, str], ...] = ()
    required_cores: Cores = 1
    required_memory_bytes: int = 0
    required_gpus: tuple[int, ...] = ()
    target: Target | None = None
    container_name: str | None = None
    registry_image: str | None = None
    working_dir: str | None = None
    privileged: bool = False
    capabilities: tuple[str, ...] = ()
    """What it is given beyond the rights that every workload has; names as in `models.spec.capabilities`."""
    additional_mounts: tuple[str, ...] = ()
    name: str | None = None
    priority: int = 0
    task_type: TaskType = TaskType.COMMAND
    retries: int = 0
    """How often an attempt that was lost to the system is followed by another one."""
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """How long its processes have between SIGTERM and SIGKILL, when it is ended from outside."""
    stdin: TaskFile | None = None
    """Its standard input; None: it has none."""
    script: TaskFile | None = None
    """What is run in place of the program `command`, which is its name where it came from."""
    vps: VpsSpec | None = None
    """Set exactly for tasks of the type `vps`, whose `command` is empty."""
    options: ContainerOptions | None = None
    """None: it asks for none of them."""
    pull: PullPolicy = PullPolicy.MISSING
    """Of `registry_image`."""

    @property
    def demand(self) -> Demand:
        """What the ledger and the placement look at. Environments live in shared storage."""
        targeted = self.target.gpus if self.target else ()
        return Demand(
            cores=self.required_cores,
            memory_bytes=self.required_memory_bytes,
            target=self.target,
            gpus=tuple(sorted({*self.required_gpus, *targeted})) if targeted or self.required_gpus else (),
            needs=_OF_AN_ENVIRONMENT if self.registry_image is None else frozenset(),
        )


@dataclass(frozen=True, slots=True)
class Task:
    """One task as the store holds it.

    `attempt` counts placements from 1 (0: never placed). `revision` is the number of the last report of this
    attempt that was applied. `kill_requested` outlives state changes until the task has ended. Byte counts
    are known once the task has ended on a node. `retries_used` counts attempts that were lost to the system
    and followed by another. `move_requested`: the current attempt is being ended so that the task can run
    somewhere else, which uses up no retry. `left_node` is where the attempt before this one was lost.
    `session` is what a VPS stands at beside that. `image_digest` says which image the attempt ran in: the
    registry's digest of it, or its id where it came from no registry.
    """

    id: TaskId
    spec: TaskSpec
    state: TaskState
    owner: str
    submitted_at: datetime
    batch_id: TaskId | None = None
    attempt: int = 0
    revision: int = 0
    assigned_node: str | None = None
    kill_requested: bool = False
    exit_code: int | None = None
    error_message: str | None = None
    decided_by: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    stdout_path: str | None = None
    stderr_path: str | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    retries_used: int = 0
    move_requested: bool = False
    left_node: str | None = None
    session: SessionState | None = None
    image_digest: str | None = None

    @property
    def is_vps(self) -> bool:
        return self.spec.task_type is TaskType.VPS

    @property
    def may_run_again(self) -> bool:
        """Whether an attempt that did not end by itself now is followed by another one. A kill forbids it."""
        if self.kill_requested or not self.spec.retries:
            return False
        return self.move_requested or self.retries_used < self.spec.retries

    @property
    def demand(self) -> Demand:
        """What it asks for now: as its spec has it, and rather not from the node that it left.

        A session that has run goes back there and nowhere else: its files are there.
        """
        if self.left_node is None:
            return self.spec.demand
        if self.session is not None and self.session.address is not None:
            asked = self.spec.target
            home = asked if asked is not None and asked.hostname == self.left_node else Target(self.left_node)
            return changed(self.spec.demand, target=home)
        return changed(self.spec.demand, avoid=self.left_node)

    def back_to_queue(self, message: str | None) -> "Task":
        """Return the record of a task that waits anew; raises ForbiddenTransition if the table forbids it.

        Where the attempt's output lies is kept until the next attempt begins.
        """
        return self.to(
            TaskState.PENDING,
            assigned_node=None,
            left_node=self.assigned_node,
            revision=0,
            move_requested=False,
            error_message=message,
            exit_code=None,
            started_at=None,
            completed_at=None,
            stdout_bytes=None,
            stderr_bytes=None,
            image_digest=None,
        )

    def run_again(self, message: str | None) -> "Task":
        """Return the record after an attempt was lost; uses up a retry unless it was ended to be moved."""
        used = self.retries_used + (not self.move_requested)
        return changed(self.back_to_queue(message), retries_used=used)

    def to(self, state: TaskState, **changes: object) -> "Task":
        """Return the record after a step to `state`; raises ForbiddenTransition if the table forbids it."""
        if not is_permitted(self.state, state, is_vps=self.is_vps):
            raise self._forbidden(state)
        return changed(self, state=state, **changes)

    def steps_to(self, state: TaskState) -> tuple[TaskState, ...]:
        """The states to pass through to `state`, as `transitions.steps_to` has it.

        Raises ForbiddenTransition if there is no way.
        """
        steps = steps_to(self.state, state, is_vps=self.is_vps)
        if not steps:
            raise self._forbidden(state)
        return steps

    def _forbidden(self, state: TaskState) -> ForbiddenTransition:
        return ForbiddenTransition(self.state, state, self.id, self.attempt, self.assigned_node)
