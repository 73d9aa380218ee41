"""Tasks as tables and facts, and the exit status that a task's end means."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from kohakuriver.cli.console.output import Facts, Table
from kohakuriver.cli.console.sizes import age_text, duration_text, moment_text, size_text
from kohakuriver.models.enums import PullPolicy, TaskState
from kohakuriver.models.shared_sentences import PROCESS_EXCEEDED_MEMORY, PULL_TRIED_AGAIN
from kohakuriver.models.spec.task_files import INPUT_CUT_OFF

if TYPE_CHECKING:
    from kohakuriver.client.records import TaskRecord

KILLED_STATUS = 137
"""128 + SIGKILL, as a shell reports it."""

_NOT_EXECUTED = (126, 127)
"""Exit statuses of a command that was not there, or could not be executed: then it said nothing by itself."""

_NAMED = 5
_SHORT_ID = 8
_COMMAND_WIDTH = 60
_COMPACT_COMMAND_WIDTH = 32


def exit_status_of(task: "TaskRecord") -> int:
    """Exit status of `run` and `task wait`: the command's own where there is one.

    137 for a task that was killed, by a user or for want of memory; 1 for one that never ran or was lost.
    """
    if task.status in (TaskState.COMPLETED, TaskState.STOPPED):
        return 0
    if task.status in (TaskState.KILLED, TaskState.KILLED_OOM):
        return KILLED_STATUS
    if task.exit_code is not None and 0 < task.exit_code < 256:
        return task.exit_code
    return 1


def end_sentence(task: "TaskRecord") -> str | None:
    """Say why a task ended, where its exit status and its own output do not."""
    if task.status in (TaskState.COMPLETED, TaskState.FAILED) and PROCESS_EXCEEDED_MEMORY in (
        task.error_message or ""
    ):
        return f"task {task.task_id}: {PROCESS_EXCEEDED_MEMORY}"
    own_end = task.status is TaskState.FAILED and task.exit_code is not None
    if INPUT_CUT_OFF in (task.error_message or ""):
        own_end = False
    if task.status is TaskState.COMPLETED or (own_end and task.exit_code not in _NOT_EXECUTED):
        return None
    reason = f": {task.error_message}" if task.error_message else ""
    return f"task {task.task_id} ended as {task.status.value}{reason}"


def waiting_sentence(task: "TaskRecord", kind: str = "task") -> str:
    """Say what a task, or what else its `kind` is, waits for while it does not run yet, in one line."""
    if task.status is TaskState.PENDING_APPROVAL:
        return f"{kind} {task.task_id} waits for an operator's approval"
    if task.status is TaskState.ASSIGNING:
        if reasons := _reasons(task):
            return f"{kind} {task.task_id} starts on {task.assigned_node}, which takes no work now: {reasons}"
        progress = f": {task.progress}" if task.progress else ""
        return f"{kind} {task.task_id} starts on {task.assigned_node}{progress}"
    if can_never_run_here(task):
        return f"{kind} {task.task_id} waits: {task.error_message}"
    return f"{kind} {task.task_id} waits for room: {_reasons(task) or 'it is in the queue'}"


def is_held_up(task: "TaskRecord") -> bool:
    """Tell whether something goes wrong while the task starts: with its image, or with its node."""
    if task.status is not TaskState.ASSIGNING:
        return False
    return bool(task.pending_reasons) or PULL_TRIED_AGAIN in (task.progress or "")


def can_never_run_here(task: "TaskRecord") -> bool:
    """Tell whether the host says of a waiting task that no node could hold it, were it empty."""
    return task.status is TaskState.PENDING and bool(task.error_message)


def _reasons(task: "TaskRecord") -> str:
    """Why it is on no node, in one sentence however many nodes there are: those of one reason together."""
    nodes_by_reason: dict[str, list[str]] = {}
    for item in task.pending_reasons:
        nodes_by_reason.setdefault(item.reason, []).append(item.node)
    told = [f"{_listed(nodes)}: {reason}" for reason, nodes in nodes_by_reason.items()]
    more = f"; and {len(told) - _NAMED} more reasons" if len(told) > _NAMED else ""
    return "; ".join(told[:_NAMED]) + more


def _listed(nodes: list[str]) -> str:
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return ", ".join(nodes[:_NAMED]) + more


def task_table(tasks: "Sequence[TaskRecord]", *, compact: bool, now: datetime | None = None) -> Table:
    now = now or datetime.now(UTC)
    if compact:
        return Table(
            headings=("ID", "STATE", "NODE", "COMMAND"),
            rows=[
                (
                    task.task_id[-_SHORT_ID:],
                    task.status.value,
                    task.assigned_node or "-",
                    _command(task, _COMPACT_COMMAND_WIDTH),
                )
                for task in tasks
            ],
            state_column=1,
            empty="No tasks.",
        )
    return Table(
        headings=("ID", "NAME", "STATE", "NODE", "CORES", "MEMORY", "GPUS", "AGE", "TIME", "COMMAND"),
        rows=[
            (
                task.task_id,
                task.name or "-",
                task.status.value,
                task.assigned_node or "-",
                str(task.required_cores),
                size_text(task.required_memory_bytes or None),
                ",".join(map(str, task.required_gpus)) or "-",
                age_text(task.submitted_at, now),
                run_time_text(task, now),
                _command(task, _COMMAND_WIDTH),
            )
            for task in tasks
        ],
        state_column=2,
        empty="No tasks.",
    )


def task_facts(task: "TaskRecord", now: datetime | None = None) -> Facts:
    now = now or datetime.now(UTC)
    return Facts(
        [
            ("Task", task.task_id),
            ("Name", task.name or ""),
            ("State", task.status.value),
            ("Exit status", "" if task.exit_code is None else str(task.exit_code)),
            ("Message", task.error_message or ""),
            *((f"Not on {item.node}", item.reason) for item in task.pending_reasons),
            ("Node", task.assigned_node or ""),
            ("Progress", task.progress or ""),
            ("Target", task.target or ""),
            ("Command", _whole_command(task)),
            *_file_facts(task),
            ("Environment", task.container_name or ""),
            ("Image", task.registry_image or ""),
            *_image_facts(task),
            ("Working directory", task.working_dir or ""),
            ("Cores", str(task.required_cores) if task.required_cores else "no limit"),
            (
                "Memory",
                size_text(task.required_memory_bytes) if task.required_memory_bytes else "default",
            ),
            ("GPUs", ",".join(map(str, task.required_gpus))),
            ("Mounts", " ".join(task.additional_mounts)),
            ("Privileged", "yes" if task.privileged else ""),
            ("Capabilities", " ".join(task.capabilities)),
            *container_facts(task),
            ("Priority", str(task.priority) if task.priority else ""),
            ("Owner", task.owner or ""),
            ("Decided by", task.decided_by or ""),
            ("Attempt", str(task.attempt) if task.attempt > 1 else ""),
            ("Retries", f"{task.retries_used} of {task.retries} used" if task.retries else ""),
            *_times(task, now),
            ("Output", _output_sizes(task)),
        ]
    )


def _times(task: "TaskRecord", now: datetime) -> list[tuple[str, str]]:
    return [
        ("Submitted", moment_text(task.submitted_at, now)),
        ("Started", moment_text(task.started_at, now)),
        ("Ended", moment_text(task.completed_at, now)),
        ("Run time", run_time_text(task, now) if task.started_at else ""),
    ]


def _file_facts(task: "TaskRecord") -> list[tuple[str, str]]:
    script = "" if task.script_bytes is None else f"sent along, {size_text(task.script_bytes)}"
    stdin = "" if task.stdin_bytes is None else f"sent along, {size_text(task.stdin_bytes)}"
    return [("Script", script), ("Input", "sent while it runs" if task.stdin_streams else stdin)]


def _image_facts(task: "TaskRecord") -> list[tuple[str, str]]:
    return [
        ("Pull", task.pull if task.pull != PullPolicy.MISSING else ""),
        ("Image digest", task.image_digest or ""),
    ]


def container_facts(task: "TaskRecord") -> "list[tuple[str, str]]":
    """What it asks of its container beside rights and mounts."""
    return [
        ("Shared memory", size_text(task.shm_size_bytes) if task.shm_size_bytes else ""),
        ("Limits", " ".join(task.ulimits)),
        ("IPC", task.ipc or ""),
        ("Devices", " ".join(task.devices)),
        ("User", task.user or ""),
        ("Host name", task.hostname or ""),
    ]


def _whole_command(task: "TaskRecord") -> str:
    words = shlex.join((task.command, *task.arguments) if task.command else task.arguments)
    return words if task.command else f"(of the image) {words}".rstrip()


def _command(task: "TaskRecord", width: int) -> str:
    text = _whole_command(task)
    return text if len(text) <= width else text[: width - 1] + "…"


def run_time_text(task: "TaskRecord", now: datetime) -> str:
    """How long it has run, or did; `-` before it ran."""
    if task.started_at is None:
        return "-"
    return duration_text(((task.completed_at or now) - task.started_at).total_seconds())


def _output_sizes(task: "TaskRecord") -> str:
    if task.stdout_bytes is None or task.stderr_bytes is None:
        return ""
    return f"{size_text(task.stdout_bytes)} on stdout, {size_text(task.stderr_bytes)} on stderr"
