"""Messages between host and runner, as msgspec structs; field names are those of the HTTP interface.

JSON on the wire. Task ids are strings there; either form is accepted when reading. Times are aware UTC.
Unknown fields are ignored, so that mixed versions can talk; a field is added only with a default.
"""

from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from kohakuriver.models.enums import EnrolState, OrderKind, SshKeyMode, Stream, TaskState
from kohakuriver.models.errors import InvalidInput

PROTOCOL_VERSION = 1
SESSIONS = "sessions"
"""Capability of a runner that registers with the session that the host offered (see `Registration`)."""

NonNegative = Annotated[int, msgspec.Meta(ge=0)]
IdField = int | str


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base: immutable, fields by name."""


class NumaInfo(_Message, frozen=True):
    id: int
    cpus: list[int]
    memory_bytes: int


class GpuInfo(_Message, frozen=True):
    """One GPU; static facts always, live figures (None: not supported) with each heartbeat."""

    gpu_id: int
    uuid: str
    name: str
    memory_total_bytes: int
    vendor: str = "nvidia"
    pci_bus_id: str | None = None
    numa_node: int | None = None
    driver_version: str | None = None
    gpu_utilization: float | None = None
    memory_used_bytes: int | None = None
    temperature: float | None = None
    power_usage_watts: float | None = None


class NodeFigures(_Message, frozen=True):
    """One sample of a node's load. `at` is the time of the sample on the node's own clock."""

    at: datetime
    cpu_percent: float
    memory_percent: float
    memory_used_bytes: int
    memory_total_bytes: int
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    gpu_info: list[GpuInfo] = []


class HostIntroduction(_Message, frozen=True):
    """What a host says of itself to a runner that it does not know (`GET /api/enrol`)."""

    cluster_id: str
    host_public_key: str


class EnrolRequest(_Message, frozen=True):
    """First contact of a runner. `join_proof`: HMAC under the join token's secret, see `wire.enrolment`."""

    hostname: str
    public_key: str
    join_token_id: str | None = None
    join_proof: str | None = None


class EnrolAnswer(_Message, frozen=True):
    """Answer to an enrolment; `host_proof` answers a join proof under the same secret."""

    state: EnrolState
    cluster_id: str
    host_public_key: str
    fingerprint: str
    host_proof: str | None = None


class Registration(_Message, frozen=True):
    """Sent at every start of a runner. `settings` are the ones that must match the host's."""

    hostname: str
    url: str
    total_cores: Annotated[int, msgspec.Meta(ge=1)]
    total_ram_bytes: Annotated[int, msgspec.Meta(ge=1)]
    numa_topology: list[NumaInfo] = []
    gpu_info: list[GpuInfo] = []
    heartbeat_interval_seconds: Annotated[float, msgspec.Meta(ge=1)] = 5
    shared_cluster_id: str | None = None
    """Cluster id in the marker of the runner's SHARED_DIR; None: no shared storage there."""
    runner_version: str = ""
    protocol_version: int = PROTOCOL_VERSION
    boot_id: str = ""
    """Changes with every start of the runner."""
    session: str = ""
    """The one that the host offered in its last answer; good for one registration."""
    capabilities: list[str] = []
    settings: dict[str, Any] = {}
    vm_capable: bool = False
    vfio_gpus: list[dict[str, Any]] = []


class RegistrationAnswer(_Message, frozen=True):
    """`faults` are sentences about settings that differ; they are shown on the node and in its log.

    `known` False: nothing was taken in, because the registration may be an old one that somebody sends again;
    it is to be sent once more with `session`.
    """

    cluster_id: str
    shared_storage: str
    """`same`, `none` or `foreign`, as the host judges the runner's marker."""
    faults: list[str] = []
    known: bool = True
    session: str = ""


class TaskReport(_Message, frozen=True):
    """What became of one attempt. `revision` counts the reports of an attempt from 1."""

    task_id: IdField
    status: TaskState
    attempt: NonNegative
    revision: NonNegative
    exit_code: int | None = None
    message: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    ssh_port: int | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    lost_to_system: bool = False
    """The command did not end by itself: engine or runner could not start it, or lost it while it ran."""
    address: str | None = None
    """Of a session, on its node's network; None: as before."""
    notice: str | None = None
    """What went wrong in a session without ending it, as a sentence for its owner; empty: all is well."""
    stop_given_up: bool = False
    """The session was told to stop and goes on, so what was to follow the stop does not follow."""


class ReportsAnswer(_Message, frozen=True):
    """`committed` counts the reports, from the first, that the host has in its store for ever."""

    committed: int


class AttemptState(_Message, frozen=True):
    """One workload in a heartbeat's full list. `stray`: in the engine, and its runner has no record of it."""

    task_id: IdField
    attempt: int
    status: TaskState
    revision: int
    stray: bool = False


class Killed(_Message, frozen=True):
    task_id: IdField
    reason: str


class Heartbeat(_Message, frozen=True):
    """`attempts` lists every workload that the runner holds or still has reports for, complete each time.

    `revision` grows with each heartbeat of a boot; the host ignores one that is not newer.
    `orders_seen` is the highest order number that the runner had taken in when it made the list.
    `session` is the one of the registration that was taken in last.
    `complete` False: the engine was not asked yet, so that it may hold more than the runner has on record.
    """

    running_tasks: list[IdField] = []
    killed_tasks: list[Killed] = []
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    memory_used_bytes: NonNegative = 0
    memory_total_bytes: NonNegative = 0
    current_avg_temp: float | None = None
    current_max_temp: float | None = None
    gpu_info: list[GpuInfo] = []
    vm_capable: bool = False
    vfio_gpus: list[dict[str, Any]] = []
    runner_version: str = ""
    attempts: list[AttemptState] = []
    complete: bool = True
    revision: NonNegative = 0
    orders_seen: NonNegative = 0
    boot_id: str = ""
    session: str = ""
    history: list[NodeFigures] = []
    """Samples since the last heartbeat, oldest first."""
    faults: list[str] = []
    """What is wrong on the node now, as sentences (engine down, disk full)."""


class HeartbeatAnswer(_Message, frozen=True):
    """`known` False: the host does not know this boot of the runner; it must register again."""

    known: bool
    end_attempts: list[AttemptState] = []
    """Workloads that the host does not want (old attempts, unknown tasks); the runner ends them."""


class SessionOrder(_Message, frozen=True):
    """What an execute order for a VPS says beside the rest; fields as in `models.sessions`."""

    hostname: str
    ssh_key_mode: SshKeyMode = SshKeyMode.DISABLED
    authorized_keys: list[str] = []
    host_key: str = ""
    address: str | None = None
    restore: str = ""


class Order(_Message, frozen=True):
    """One thing to do, numbered by the host. Repeating an order changes nothing.

    The fields from `command` to `session` are used by `execute` alone, which needs one of these two.
    """

    kind: OrderKind
    task_id: IdField
    attempt: NonNegative = 1
    order_id: NonNegative = 0
    command: str = ""
    arguments: list[str] = []
    env_vars: dict[str, str] = {}
    required_cores: NonNegative = 1
    required_gpus: list[NonNegative] = []
    required_memory_bytes: NonNegative | None = None
    target_numa_node_id: NonNegative | None = None
    container_name: str | None = None
    registry_image: str | None = None
    working_dir: str | None = None
    stdout_path: str | None = None
    stderr_path: str | None = None
    reserved_ip: str | None = None
    privileged: bool = False
    additional_mounts: list[str] = []
    session: SessionOrder | None = None
    """Set for a VPS, which needs no `command`."""
    spare_snapshot: NonNegative | None = None
    """Of a `stop`: the snapshot that the session is to start from next; the one made now replaces another."""


class OrderAnswer(_Message, frozen=True):
    """Answer to one order. `accepted` False: the runner refuses for good; `detail` says why."""

    order_id: int
    accepted: bool
    detail: str | None = None


class SnapshotWish(_Message, frozen=True):
    message: Annotated[str, msgspec.Meta(max_length=500)] = ""


class SnapshotState(_Message, frozen=True):
    """One snapshot of a session; `at`: unix time, which names it; `size_bytes`: what it adds."""

    at: int
    message: str
    size_bytes: int


class LogWindow(_Message, frozen=True):
    """A range of an output stream that the host asks a runner for, when it cannot read the file itself."""

    task_id: IdField
    stream: Stream
    offset: NonNegative = 0
    length: NonNegative = 1 << 20


_Struct = TypeVar("_Struct")
_encoder = msgspec.json.Encoder()


def encode(message: object) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes, kind: type[_Struct]) -> _Struct:
    """Read a message; raises InvalidInput with the path of the field that does not fit."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the message does not fit: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
