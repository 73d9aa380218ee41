"""Answers of the host's API as msgspec structs, with the API's own field names.

Unknown fields are ignored and every field but the one that identifies a record has a default, so that a
client and a host of different versions understand each other.
"""

from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from kohakuriver.models.enums import NodeStatus, PullPolicy
from kohakuriver.models.spec.amounts import Cores
from kohakuriver.wire.task_record import PendingReason as PendingReason  # noqa: PLC0414 - a client's too
from kohakuriver.wire.task_record import TaskRecord as TaskRecord  # noqa: PLC0414 - a client's too

Value = TypeVar("Value")


class Reply(msgspec.Struct, Generic[Value], frozen=True):
    """One answer: `value` to work with, `raw` as the host sent it, fields unknown here included."""

    value: Value
    raw: Any


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base: immutable, fields by name."""


class Message(_Record, frozen=True, kw_only=True):
    message: str = ""


class Submission(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /api/submit`; what is left out is decided by the host."""

    required_cores: Cores
    command: str = ""
    arguments: list[str] = []
    env_vars: dict[str, str] = {}
    required_memory_bytes: int | None = None
    targets: list[str] | None = None
    container_name: str | None = None
    registry_image: str | None = None
    working_dir: str | None = None
    privileged: bool | None = None
    capabilities: list[str] = []
    additional_mounts: list[str] | None = None
    shm_size_bytes: int | None = None
    ulimits: list[str] = []
    ipc: str | None = None
    devices: list[str] = []
    user: str | None = None
    hostname: str | None = None
    ip_reservation_token: str | None = None
    name: str | None = None
    priority: int = 0
    retries: int = 0
    pull: PullPolicy | None = None
    grace_seconds: int | None = None
    stdin: bytes | None = None
    stdin_streams: bool = False
    script: bytes | None = None


class FailedTarget(_Record, frozen=True, kw_only=True):
    target: str = ""
    reason: str = ""


class Submitted(_Record, frozen=True, kw_only=True):
    task_ids: list[str] = []
    message: str = ""
    assigned_node: Any = None
    failed_targets: list[Any] | None = None


class ResolvedTask(_Record, frozen=True, kw_only=True):
    task_id: str


class GpuRecord(_Record, frozen=True, kw_only=True):
    gpu_id: int = 0
    name: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    gpu_utilization: float | None = None
    temperature: float | None = None


class OrphanRecord(_Record, frozen=True, kw_only=True):
    """A workload that a node holds under another node's name."""

    node: str = ""
    task_id: str | int = ""
    attempt: int = 0
    status: str = ""
    cores: int = 0
    memory_bytes: int = 0
    gpus: list[int] = []


class NodeRecord(_Record, frozen=True, kw_only=True):
    hostname: str
    status: NodeStatus
    url: str | None = None
    total_cores: int = 0
    memory_total_bytes: int | None = None
    last_heartbeat: datetime | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    numa_topology: dict[str, Any] | list[Any] | None = None
    """By number; a list from hosts of before."""
    gpu_info: list[GpuRecord] | None = None
    leftovers: list[OrphanRecord] = []
    vm_capable: bool | None = None
    runner_version: str | None = None
    fingerprint: str | None = None
    faults: list[str] | None = None
    notices: list[str] | None = None
    shared_storage: str | None = None
    cores_used: Cores = 0
    memory_used_by_tasks_bytes: int = 0
    gpus_used: list[int] | None = None
    closed_reason: str = ""
    draining: bool = False
    tasks: int = 0


class Drained(_Record, frozen=True, kw_only=True):
    """`task_ids`: what is on the node still; `moving`: those of them that are being moved."""

    message: str = ""
    task_ids: list[str] = []
    moving: list[str] = []


class HealthPoint(_Record, frozen=True, kw_only=True):
    """One second of one node, or of the whole cluster, in the health history."""

    hostname: str | None = None
    cpu_percent: float | None = None
    memory_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    current_avg_temp: float | None = None
    current_max_temp: float | None = None


class ClusterHealth(_Record, frozen=True, kw_only=True):
    """The last 60 seconds, oldest first; `nodes` has one list of points for each second."""

    nodes: list[list[HealthPoint]] = []
    aggregate: list[HealthPoint] = []


class JoinToken(_Record, frozen=True, kw_only=True):
    """`token` is there in the answer that made it and never again."""

    token_id: str
    token: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    used: bool = False
    host_address: str | None = None
    host_port: int | None = None


class RegistryLogin(_Record, frozen=True, kw_only=True):
    """Who the cluster is at a registry; the password is told to nobody."""

    registry: str
    username: str = ""
    kept_by: str = ""
    kept_at: datetime | None = None


class EnvironmentContainer(_Record, frozen=True, kw_only=True):
    """`name` is the container's; of hosts of before, which tell no `env_name`, the environment's."""

    name: str
    env_name: str = ""
    container: str = ""
    image: str = ""
    status: str = ""
    created: str | int | None = None
    """A moment as the engine writes it: ISO 8601 or Unix time."""

    @property
    def environment(self) -> str:
        return self.env_name or self.name


class TarballVersion(_Record, frozen=True, kw_only=True):
    timestamp: int = 0
    tarball: str = ""
    size_bytes: int | None = None


class EnvironmentTarballs(_Record, frozen=True, kw_only=True):
    """One environment as it stands in shared storage; the newest tarball is the current one."""

    name: str
    latest_timestamp: int | None = None
    latest_tarball: str | None = None
    size_bytes: int | None = None
    all_versions: list[TarballVersion] = []


class Fault(_Record, frozen=True, kw_only=True):
    part: str = ""
    message: str = ""


class Readiness(_Record, frozen=True, kw_only=True):
    """`/readyz`: `faults` names each part of the host that does not work (yet)."""

    status: str = ""
    faults: list[Fault] = []


class LeftoverItem(msgspec.Struct, frozen=True, kw_only=True):
    """So many of one kind in one place; `kept_days` 0: they are kept for ever."""

    kind: str
    place: str = ""
    count: int = 0
    size_bytes: int | None = None
    kept_days: int = 0


class LeftoverFault(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be looked at, or removed."""

    place: str = ""
    message: str = ""


class Leftovers(msgspec.Struct, frozen=True, kw_only=True):
    """What has been kept for long enough: what would go, or has gone."""

    items: list[LeftoverItem] = []
    faults: list[LeftoverFault] = []
