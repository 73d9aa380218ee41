"""The record of a task: what was asked for, and where it stands. Frozen; a change makes a new record."""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from kohakuriver.models.abilities import Ability
from kohakuriver.models.attempts import NEVER_PLACED, Attempt
from kohakuriver.models.enums import PullPolicy, TaskState, TaskType
from kohakuriver.models.ids import TaskId
from kohakuriver.models.records import changed
from kohakuriver.models.resources import Demand
from kohakuriver.models.spec.amounts import Cores
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS
from kohakuriver.models.spec.targets import Target
from kohakuriver.models.spec.task_files import TaskFile
from kohakuriver.models.transitions import ENDED, ForbiddenTransition, is_permitted, steps_to
from kohakuriver.models.vps import VpsSpec, VpsState


class TaskSpec(msgspec.Struct, frozen=True):
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
        """What the ledger and the placement look at."""
        targeted = self.target.gpus if self.target else ()
        return Demand(
            cores=self.required_cores,
            memory_bytes=self.required_memory_bytes,
            target=self.target,
            gpus=tuple(sorted({*self.required_gpus, *targeted})) if targeted or self.required_gpus else (),
            needs=frozenset(self._needs()),
        )

    def _needs(self) -> Iterator[Ability]:
        if self.registry_image is None:
            yield Ability.SHARED_STORAGE  # where environments live
        if self.vps is not None:
            yield Ability.VPS
        if self.stdin is not None:
            yield Ability.INPUTS


class Task(msgspec.Struct, frozen=True):
    """One task as the store holds it.

    `attempt` is its newest one. `kill_requested` outlives state changes until the task has ended.
    `retries_used` counts attempts that were lost to the system and followed by another. `move_requested`: the
    current attempt is being ended so that the task can run somewhere else, which uses up no retry.
    `previous_node` is where the attempt before this one was lost. `vps_state`: of a VPS, beside that.

    Each step has a method here, which raises ForbiddenTransition if the table forbids it.
    """

    id: TaskId
    spec: TaskSpec
    state: TaskState
    owner: str
    submitted_at: datetime
    batch_id: TaskId | None = None
    attempt: Attempt = NEVER_PLACED
    kill_requested: bool = False
    error_message: str | None = None
    decided_by: str | None = None
    completed_at: datetime | None = None
    retries_used: int = 0
    move_requested: bool = False
    previous_node: str | None = None
    vps_state: VpsState | None = None

    @property
    def assigned_node(self) -> str | None:
        """Where it is, or was when it ended; None while it waits."""
        return self.attempt.node

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

        A VPS that has run goes back there and nowhere else: its files are there.
        """
        if self.previous_node is None:
            return self.spec.demand
        if self.attempt.address is not None:
            asked = self.spec.target
            home = (
                asked
                if asked is not None and asked.hostname == self.previous_node
                else Target(self.previous_node)
            )
            return changed(self.spec.demand, target=home)
        return changed(self.spec.demand, avoid=self.previous_node)

    def begun(self, attempt: Attempt) -> "Task":
        """It is given to a node. What was said of its end counts no more, if it had ended."""
        self._check(TaskState.ASSIGNING)
        return changed(
            self,
            state=TaskState.ASSIGNING,
            attempt=attempt,
            kill_requested=False,
            error_message=None if self.state in ENDED else self.error_message,
            completed_at=None,
        )

    def to(self, state: TaskState) -> "Task":
        """A step that changes nothing else."""
        self._check(state)
        return changed(self, state=state)

    def seen(self, state: TaskState, message: str | None, attempt: Attempt | None = None) -> "Task":
        """A step that does not end it, and what is known of its attempt by then; `message` says why."""
        self._check(state)
        return changed(self, state=state, attempt=attempt or self.attempt, error_message=message)

    def ended(
        self, state: TaskState, at: datetime, message: str | None, attempt: Attempt | None = None
    ) -> "Task":
        """It has come to its end, and with it the attempt that it was in."""
        self._check(state)
        attempt = attempt or self.attempt
        if attempt.node is not None:
            attempt = attempt.ended(state, at, message)
        return changed(self, state=state, attempt=attempt, error_message=message, completed_at=at)

    def approved(self, by: str) -> "Task":
        self._check(TaskState.PENDING)
        return changed(self, state=TaskState.PENDING, decided_by=by, error_message=None)

    def rejected(self, by: str, at: datetime, message: str) -> "Task":
        return changed(self.ended(TaskState.REJECTED, at, message), decided_by=by)

    def back_to_queue(self, message: str | None) -> "Task":
        """It waits anew, as if it had never been given to that node."""
        self._check(TaskState.PENDING)
        return changed(
            self,
            state=TaskState.PENDING,
            attempt=self.attempt.left(),
            previous_node=self.attempt.node,
            move_requested=False,
            error_message=message,
            completed_at=None,
        )

    def run_again(self, message: str | None) -> "Task":
        """It waits anew after an attempt was lost: uses up a retry unless it was ended to be moved."""
        used = self.retries_used + (not self.move_requested)
        return changed(self.back_to_queue(message), retries_used=used)

    def steps_to(self, state: TaskState) -> tuple[TaskState, ...]:
        """The states to pass through to `state`, as `transitions.steps_to` has it.

        Raises ForbiddenTransition if there is no way.
        """
        steps = steps_to(self.state, state, is_vps=self.is_vps)
        if not steps:
            raise self._forbidden(state)
        return steps

    def _check(self, state: TaskState) -> None:
        if not is_permitted(self.state, state, is_vps=self.is_vps):
            raise self._forbidden(state)

    def _forbidden(self, state: TaskState) -> ForbiddenTransition:
        return ForbiddenTransition(self.state, state, self.id, self.attempt.number, self.assigned_node)
