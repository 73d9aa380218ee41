"""Answers about VPSs, and what is sent to create one; the rules of `records` hold here too."""

from datetime import datetime

import msgspec

from kohakuriver.client.records import TaskRecord
from kohakuriver.models.enums import PullPolicy, SshKeyMode
from kohakuriver.models.spec.amounts import Cores


class VpsRecord(TaskRecord, frozen=True, kw_only=True):
    """One VPS: the fields of a task and its own.

    `address` is the one on its node's network; `notice` says what went wrong without ending it.
    `restart_requested`: it is being stopped, or waits for room, to be started again.
    """

    vps_backend: str = "docker"
    ssh_key_mode: SshKeyMode = SshKeyMode.DISABLED
    ssh_port: int | None = None
    address: str | None = None
    notice: str | None = None
    host_public_key: str | None = None
    restart_requested: bool = False


class VpsCreation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `POST /api/vps/create`; what is left out is decided by the host."""

    required_cores: Cores
    name: str | None = None
    required_gpus: list[int] = []
    required_memory_bytes: int | None = None
    target_hostname: str | None = None
    target_numa_node_id: int | None = None
    container_name: str | None = None
    registry_image: str | None = None
    ssh_key_mode: SshKeyMode | None = None
    ssh_public_keys: list[str] = []
    env_vars: dict[str, str] = {}
    privileged: bool | None = None
    capabilities: list[str] = []
    additional_mounts: list[str] = []
    shm_size_bytes: int | None = None
    ulimits: list[str] = []
    ipc: str | None = None
    devices: list[str] = []
    vps_backend: str | None = None
    vm_image: str | None = None
    vm_disk_size: str | None = None
    memory_mb: int | None = None
    pull: PullPolicy | None = None


class CreatedVps(msgspec.Struct, frozen=True, kw_only=True):
    """`ssh_private_key` is there in this answer and never again."""

    task_id: str
    name: str = ""
    ssh_port: int | None = None
    assigned_node: str | None = None
    message: str = ""
    ssh_private_key: str | None = None
    ssh_public_key: str | None = None


class GatewayRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The host's SSH gateway; `host_key` is its public key, as `type base64`."""

    host: str = ""
    port: int = 0
    host_key: str = ""


class SnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`timestamp` (unix time) names it; `size_bytes` is what it adds to the image below it."""

    timestamp: int
    created_at: datetime | None = None
    message: str = ""
    size_bytes: int | None = None


class Snapshots(msgspec.Struct, frozen=True, kw_only=True):
    """The snapshots of one VPS, newest first."""

    snapshots: list[SnapshotRecord]


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A user who may use a VPS that belongs to somebody else."""

    username: str
    assigned_by: str | None = None
    assigned_at: datetime | None = None


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use one VPS."""

    assignments: list[Assignment]
