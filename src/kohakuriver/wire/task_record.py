"""A task as the host's API shows it and its clients read it.

Every field but the two that say which task it is and how it stands has a default, so that a client
understands hosts of other versions. A host gives all of them, and narrows the types of what it knows better.
"""

from datetime import datetime

import msgspec

from kohakuriver.models.enums import TaskState
from kohakuriver.models.spec.amounts import Cores


class PendingReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a waiting task is not on this node."""

    node: str = ""
    reason: str = ""


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One task. `pending_reasons` and `progress` are filled only by `/api/status`.

    `progress`: how far its image is on its way to the node, while it waits for that. `image_digest`: of the
    image that it ran in; the image's id where that came from no registry.

    `shortened`: it is large, and this list leaves out the last of its arguments, mounts and variables, which
    `/api/status` shows.
    """

    task_id: str
    batch_id: str | None = None
    name: str | None = None
    task_type: str = "command"
    status: TaskState
    owner: str = ""
    priority: int = 0
    command: str = ""
    arguments: tuple[str, ...] = ()
    env_vars: dict[str, str] = {}
    required_cores: Cores = 0
    required_memory_bytes: int = 0
    required_gpus: tuple[int, ...] = ()
    target: str | None = None
    target_numa_node_id: int | None = None
    container_name: str | None = None
    registry_image: str | None = None
    working_dir: str | None = None
    privileged: bool = False
    capabilities: tuple[str, ...] = ()
    additional_mounts: tuple[str, ...] = ()
    shm_size_bytes: int = 0
    ulimits: tuple[str, ...] = ()
    ipc: str | None = None
    devices: tuple[str, ...] = ()
    user: str | None = None
    hostname: str | None = None
    assigned_node: str | None = None
    attempt: int = 0
    retries: int = 0
    retries_used: int = 0
    grace_seconds: int = 0
    stdin_bytes: int | None = None
    """None: it has no input, or one that is streamed (`stdin_streams`)."""
    stdin_streams: bool = False
    script_bytes: int | None = None
    stdin: str | None = None
    """Its text, for its owner and operators, where one task is shown; the same of `script`."""
    script: str | None = None
    exit_code: int | None = None
    error_message: str | None = None
    pending_reasons: list[PendingReason] = []
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    stdout_path: str | None = None
    stderr_path: str | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    decided_by: str | None = None
    shortened: bool = False
    progress: str | None = None
    pull: str = "missing"
    image_digest: str | None = None
