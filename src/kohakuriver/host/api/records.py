"""Answers as structs: what stands in them, and how they are made from the models."""

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from kohakuriver.host.api.nodes.gpu_records import GpuRecord, gpu_record
from kohakuriver.host.api.tasks.earlier_fields import EarlierTaskFields, earlier_fields
from kohakuriver.host.auth import Action, Actor, may
from kohakuriver.host.control import NodeSnapshot
from kohakuriver.models.enums import NodeStatus, PullPolicy, TaskType
from kohakuriver.models.spec.amounts import Cores
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.models.spec.size import CutSpec
from kohakuriver.models.spec.task_files import TaskFile
from kohakuriver.models.tasks import Task, TaskSpec
from kohakuriver.wire import task_record as wire
from kohakuriver.wire.messages import NumaInfo
from kohakuriver.wire.orphan import Orphan

if TYPE_CHECKING:
    from kohakuriver.host.api.permissions import Call

HIDDEN_VALUE = "***"
_NO_OPTIONS = ContainerOptions()


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base: immutable, fields by name."""


class TaskRecord(EarlierTaskFields, frozen=True, kw_only=True):
    __doc__ = wire.TaskRecord.__doc__

    task_type: TaskType
    pull: PullPolicy
    submitted_at: datetime


class FailedTarget(Record, frozen=True, kw_only=True):
    target: str
    reason: str


class Submitted(Record, frozen=True, kw_only=True, omit_defaults=True):
    """`assigned_node` is the node that the submission named, null where the host chooses.

    `runner_response` is null: a submission is answered before any runner hears of it.
    """

    message: str
    task_ids: list[str]
    assigned_node: str | None
    runner_response: None
    failed_targets: list[FailedTarget] = []


class ResolvedTask(Record, frozen=True, kw_only=True):
    task_id: str


class NodeRecord(Record, frozen=True, kw_only=True):
    """One node, or a runner that waits for approval (status `pending`, with its key's fingerprint)."""

    hostname: str
    status: NodeStatus
    url: str | None = None
    total_cores: int = 0
    memory_total_bytes: int = 0
    last_heartbeat: datetime | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    numa_topology: dict[str, NumaInfo] | None = None
    """By number; null where there is none."""
    gpu_info: list[GpuRecord] = []
    vm_capable: bool = False
    vfio_gpus: list[dict[str, Any]] = []
    runner_version: str | None = None
    fingerprint: str | None = None
    faults: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    """What its administrator should know and mend; unlike a fault it keeps no work away."""
    shared_storage: str | None = None
    cores_used: Cores = 0
    cores_in_use: int = 0
    available_cores: int = 0
    memory_used_by_tasks_bytes: int = 0
    gpus_used: list[int] = []
    draining: bool = False
    tasks: int = 0
    """How many tasks hold a share of it, lost ones included."""
    leftovers: tuple[Orphan, ...] = ()
    """What it holds under the names of nodes that are unreachable; their share is not given out."""
    closed_reason: str = ""
    """In a few words why it takes no new work; empty: it does."""


class Drained(Record, frozen=True, kw_only=True):
    """`task_ids`: what is there still; `moving`: those of them that are being ended to run elsewhere."""

    message: str
    task_ids: list[str]
    moving: list[str]


def task_record(
    task: Task, call: "Call", reasons: list[tuple[str, str]] | None = None, progress: str | None = None
) -> TaskRecord:
    """Show a task to the caller; values of environment variables only to whom they concern.

    `reasons` None: it is one of a list, which leaves out the texts of files.
    """
    spec, target = task.spec, task.spec.target
    return TaskRecord(
        task_id=str(task.id),
        batch_id=None if task.batch_id is None else str(task.batch_id),
        name=spec.name,
        task_type=spec.task_type,
        status=task.state,
        owner=task.owner,
        priority=spec.priority,
        command=spec.command,
        arguments=spec.arguments,
        env_vars=_variables_shown(task, call.actor),
        required_cores=spec.required_cores,
        required_memory_bytes=spec.required_memory_bytes,
        required_gpus=spec.required_gpus,
        target=None if target is None else str(target),
        target_numa_node_id=None if target is None else target.numa_node,
        **_options_shown(spec.options or _NO_OPTIONS),
        assigned_node=task.assigned_node,
        attempt=task.attempt.number,
        retries=spec.retries,
        retries_used=task.retries_used,
        grace_seconds=spec.grace_seconds,
        **_files_shown(task, call.actor, in_full=reasons is not None),
        pending_reasons=[wire.PendingReason(node=node, reason=reason) for node, reason in reasons or ()],
        submitted_at=task.submitted_at,
        **_shown_as_they_are(task),
        **_asked_for(spec),
        **earlier_fields(task, call),
        shortened=isinstance(spec, CutSpec),
        progress=progress,
    )


def _options_shown(options: ContainerOptions) -> dict[str, Any]:
    """What was left to the node is null, as in other fields, and a size 0."""
    shown = {name: getattr(options, name) for name in ("shm_size_bytes", "ulimits", "devices")}
    return shown | {name: getattr(options, name) or None for name in ("ipc", "user", "hostname")}


def _shown_as_they_are(task: Task) -> dict[str, Any]:
    output = ("stdout_path", "stderr_path", "stdout_bytes", "stderr_bytes")
    of_attempt = ("started_at", "exit_code", "image_digest", *output)
    shown = {name: getattr(task.attempt, name) for name in of_attempt}
    return shown | {name: getattr(task, name) for name in ("completed_at", "error_message", "decided_by")}


def _files_shown(task: Task, actor: Actor, *, in_full: bool) -> dict[str, Any]:
    stdin, script = task.spec.stdin, task.spec.script
    in_full = in_full and may(actor, Action.READ_ENVIRONMENT_VALUES, task.owner)
    return {
        "stdin_bytes": None if stdin is None or stdin.streams else stdin.size,
        "stdin_streams": stdin is not None and stdin.streams,
        "script_bytes": None if script is None else script.size,
        "stdin": _text_of(stdin) if in_full else None,
        "script": _text_of(script) if in_full else None,
    }


def _text_of(file: TaskFile | None) -> str | None:
    return file.content.decode(errors="replace") if file is not None and file.is_whole else None


def _asked_for(spec: TaskSpec) -> dict[str, Any]:
    names = ("container_name", "registry_image", "pull", "working_dir")
    rights = ("privileged", "capabilities", "additional_mounts")
    return {name: getattr(spec, name) for name in (*names, *rights)}


def _variables_shown(task: Task, actor: Actor) -> dict[str, str]:
    variables = dict(task.spec.env_vars)
    if not variables or may(actor, Action.READ_ENVIRONMENT_VALUES, task.owner):
        return variables
    return dict.fromkeys(variables, HIDDEN_VALUE)


def numa_shown(node: NodeSnapshot) -> dict[str, NumaInfo] | None:
    announced = node.row.registration
    return {str(numa.id): numa for numa in announced.numa_topology} or None if announced else None


def node_record(node: NodeSnapshot) -> NodeRecord:
    """Show a node: what it announced, its last figures, and what is given out of it."""
    announced, beat = node.row.registration, node.figures
    total_cores, cores_in_use = announced.total_cores if announced else 0, math.ceil(node.usage.cores)
    return NodeRecord(
        hostname=node.row.hostname,
        status=node.status,
        url=announced.url if announced else None,
        total_cores=total_cores,
        memory_total_bytes=announced.total_ram_bytes if announced else 0,
        last_heartbeat=node.last_heartbeat,
        cpu_percent=beat.cpu_percent if beat else None,
        memory_percent=beat.memory_percent if beat else None,
        memory_used_bytes=beat.memory_used_bytes if beat else None,
        current_avg_temp=beat.current_avg_temp if beat else None,
        current_max_temp=beat.current_max_temp if beat else None,
        numa_topology=numa_shown(node),
        gpu_info=[
            gpu_record(gpu)
            for gpu in (beat.gpu_info if beat else []) or (announced.gpu_info if announced else [])
        ],
        vm_capable=bool(announced and announced.vm_capable),
        vfio_gpus=announced.vfio_gpus if announced else [],
        runner_version=announced.runner_version if announced else None,
        faults=node.faults,
        notices=node.notices,
        shared_storage=node.shared_storage,
        draining=node.row.draining,
        tasks=node.tasks,
        closed_reason=node.closed_reason,
        cores_used=node.usage.cores,
        cores_in_use=cores_in_use,
        available_cores=max(0, total_cores - cores_in_use),
        memory_used_by_tasks_bytes=node.usage.memory_bytes,
        gpus_used=sorted(node.usage.gpus),
        leftovers=node.orphans,
    )
