"""Messages between host and runner, as msgspec structs; field names are those of the HTTP interface.

JSON on the wire. Task ids are strings there; either form is accepted when reading. Times are aware UTC.
Unknown fields are ignored, so that mixed versions can talk; a field is added only with a default. Each field
is bounded by its type (`wire.bounds`): the other end may be anybody's by now.
"""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from kohakuriver.models.enums import EnrolState, OrderKind, PullPolicy, SshKeyMode, Stream, TaskState
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.spec.container_options import ContainerOptions
from kohakuriver.wire.bounds import (
    FAULT_LENGTH,
    MOST_ATTEMPTS,
    MOST_FAULTS,
    MOST_ORPHANS,
    PROGRESS_LENGTH,
    Cores,
    Count,
    Device,
    ExitCode,
    Figure,
    FreeForm,
    IdField,
    Index,
    Key,
    Memory,
    Moment,
    Name,
    NonNegative,
    Port,
    check_moment,
    cut,
)
from kohakuriver.wire.node_url import announced_port
from kohakuriver.wire.orphan import Orphan
from kohakuriver.wire.task_files import TaskFiles

PROTOCOL_VERSION = 2
SESSIONS = "sessions"
"""Capability of a runner that registers with the session that the host offered (see `Registration`)."""

BATCH_BYTES = 1 << 20
"""Orders and reports go in requests of about this size at most, well below what either end takes."""
MAX_ORDER_BYTES = 4 << 20
"""What a runner takes in one request. An order that is larger can never arrive."""

_Gpus = Annotated[list["GpuInfo"], Meta(max_length=512)]
_Devices = Annotated[list[Device], Meta(max_length=64)]


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base: immutable, fields by name."""


class NumaInfo(_Message, frozen=True):
    id: Index
    cpus: Annotated[list[Index], Meta(max_length=1 << 14)]
    memory_bytes: NonNegative


class GpuInfo(_Message, frozen=True):
    """One GPU; static facts always, live figures (None: not supported) with each heartbeat."""

    gpu_id: Index
    uuid: Name
    name: Name
    memory_total_bytes: NonNegative
    vendor: Name = "nvidia"
    pci_bus_id: Name | None = None
    numa_node: Index | None = None
    driver_version: Name | None = None
    gpu_utilization: Figure | None = None
    memory_used_bytes: NonNegative | None = None
    temperature: Figure | None = None
    power_usage_watts: Figure | None = None
    memory_utilization: Figure | None = None
    graphics_clock_mhz: NonNegative | None = None
    memory_clock_mhz: NonNegative | None = None
    fan_speed_percent: Figure | None = None
    power_limit_watts: Figure | None = None


class NodeFigures(_Message, frozen=True):
    """One sample of a node's load. `at` is the time of the sample on the node's own clock."""

    at: Moment
    cpu_percent: Figure
    memory_percent: Figure
    memory_used_bytes: NonNegative
    memory_total_bytes: NonNegative
    current_avg_temp: Figure | None = None
    current_max_temp: Figure | None = None
    gpu_info: _Gpus = []

    def __post_init__(self) -> None:
        check_moment(self.at)


class HostIntroduction(_Message, frozen=True):
    """What a host tells a runner that it does not know (`GET /api/enrol`). Version 1 named no version."""

    cluster_id: str
    host_public_key: str
    protocol_version: int = 1


class EnrolRequest(_Message, frozen=True):
    """First contact of a runner. `join_proof`: HMAC under the join token's secret, see
    `wire.trust.enrolment`.
    """

    hostname: Name
    public_key: Key
    join_token_id: Key | None = None
    join_proof: Key | None = None


class EnrolAnswer(_Message, frozen=True):
    """Answer to an enrolment; `host_proof` answers a join proof under the same secret.

    `approval_proof`: that this host says `approved`, see `wire.trust.enrolment`.
    """

    state: EnrolState
    cluster_id: str
    host_public_key: str
    fingerprint: str
    host_proof: str | None = None
    approval_proof: str | None = None


class Registration(_Message, frozen=True):
    """Sent at every start of a runner. `settings`: those that must match the host's, which compares them.

    `abilities`: what the node has of `models.abilities` (None: an earlier version, which does not say);
    `lacks`: why not others, as words that follow the node's name. Names that are not known are let be.
    """

    hostname: Name
    url: str
    total_cores: Cores
    total_ram_bytes: Memory
    numa_topology: Annotated[list[NumaInfo], Meta(max_length=1024)] = []
    gpu_info: _Gpus = []
    heartbeat_interval_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 5
    shared_cluster_id: Name | None = None
    """Cluster id in the marker of the runner's SHARED_DIR; None: no shared storage there."""
    runner_version: Name = ""
    protocol_version: Count = PROTOCOL_VERSION
    boot_id: Name = ""
    """Changes with every start of the runner."""
    session: Name = ""
    """The one that the host offered in its last answer; good for one registration."""
    capabilities: Annotated[list[Name], Meta(max_length=100)] = []
    abilities: Annotated[list[Name], Meta(max_length=100)] | None = None
    lacks: Annotated[dict[Name, str], Meta(max_length=100)] = {}
    settings: FreeForm = {}
    vm_capable: bool = False
    vfio_gpus: _Devices = []

    def __post_init__(self) -> None:
        announced_port(self.url)
        force_setattr(self, "lacks", {name: cut(why, FAULT_LENGTH) for name, why in self.lacks.items()})


class RegistrationAnswer(_Message, frozen=True):
    """What the host found: `faults` close the node, `notices` do not. Both are shown on it and in its log.

    `known` False: not taken in, for somebody may send an old one again; to be sent once more with `session`.
    """

    cluster_id: str
    shared_storage: str
    """`same`, `none` or `foreign`, as the host judges the runner's marker."""
    faults: list[str] = []
    notices: list[str] = []
    known: bool = True
    session: str = ""


class TaskReport(_Message, frozen=True):
    """What became of one attempt. `revision` counts its reports from 1; `never_began`: its node could not."""

    task_id: IdField
    status: TaskState
    attempt: Count
    revision: Count
    exit_code: ExitCode | None = None
    message: str | None = None
    started_at: Moment | None = None
    completed_at: Moment | None = None
    ssh_port: Port | None = None
    stdout_bytes: NonNegative | None = None
    stderr_bytes: NonNegative | None = None
    lost_to_system: bool = False
    """The command did not end by itself: engine or runner could not start it, or lost it while it ran."""
    address: Name | None = None
    """Of a VPS, on its node's network; None: as before."""
    notice: str | None = None
    """What went wrong in a VPS without ending it, as a sentence for its owner; empty: all is well."""
    never_began: bool = False
    stop_given_up: bool = False
    """The VPS was told to stop and goes on, so what was to follow the stop does not follow."""
    image_digest: Name | None = None
    """Of the image that the attempt runs in; None: as before."""

    def __post_init__(self) -> None:
        check_moment(self.started_at)
        check_moment(self.completed_at)
        # Cut and not refused: an end must not be lost because an engine said too much about it.
        for name in ("message", "notice"):
            if (told := getattr(self, name)) is not None:
                force_setattr(self, name, cut(told))


class ReportsAnswer(_Message, frozen=True):
    """`committed` counts the reports, from the first, that the host has in its store for ever."""

    committed: Count


class AttemptState(_Message, frozen=True):
    """One workload in a heartbeat's full list. `stray`: in the engine, and its runner has no record of it.

    `progress`: of its image on the way to the node, while it waits for that, as a sentence.
    """

    task_id: IdField
    attempt: Count
    status: TaskState
    revision: Count
    stray: bool = False
    progress: str | None = None

    def __post_init__(self) -> None:
        if self.progress is not None:
            force_setattr(self, "progress", cut(self.progress, PROGRESS_LENGTH))


class Killed(_Message, frozen=True):
    task_id: IdField
    reason: Name


class Heartbeat(_Message, frozen=True):
    """`attempts` lists every workload that the runner holds or still has reports for, complete each time.

    `revision` grows with each heartbeat of a boot; the host ignores one that is not newer.
    `orders_seen` is the highest order number that the runner had taken in when it made the list.
    `session` is the one of the registration that was taken in last.
    `complete` False: the engine was not asked yet, so that it may hold more than the runner has on record.
    """

    running_tasks: Annotated[list[IdField], Meta(max_length=MOST_ATTEMPTS)] = []
    killed_tasks: Annotated[list[Killed], Meta(max_length=MOST_ATTEMPTS)] = []
    cpu_percent: Figure = 0.0
    memory_percent: Figure = 0.0
    memory_used_bytes: NonNegative = 0
    memory_total_bytes: NonNegative = 0
    current_avg_temp: Figure | None = None
    current_max_temp: Figure | None = None
    gpu_info: _Gpus = []
    vm_capable: bool = False
    vfio_gpus: _Devices = []
    runner_version: Name = ""
    attempts: Annotated[list[AttemptState], Meta(max_length=MOST_ATTEMPTS)] = []
    complete: bool = True
    revision: NonNegative = 0
    orders_seen: NonNegative = 0
    boot_id: Name = ""
    session: Name = ""
    history: Annotated[list[NodeFigures], Meta(max_length=1000)] = []
    """Samples since the last heartbeat, oldest first."""
    faults: list[str] = []
    """What is wrong on the node now, as sentences (engine down, disk full)."""
    notices: list[str] = []
    """What its administrator should know and mend, and what does not keep work away; as sentences."""
    leftovers: Annotated[list[Orphan], Meta(max_length=MOST_ORPHANS)] = []
    """What runs beside `attempts` under other nodes' names: after a machine was renamed and enrolled anew, or
    where several runners share an engine."""

    def __post_init__(self) -> None:
        """Cut what is too much, for a node with too many faults is still alive."""
        for name in ("faults", "notices"):
            told = getattr(self, name)[:MOST_FAULTS]
            force_setattr(self, name, [cut(sentence, FAULT_LENGTH) for sentence in told])


class HeartbeatAnswer(_Message, frozen=True):
    """`known` False: the host does not know this boot of the runner; it must register again."""

    known: bool
    end_attempts: list[AttemptState] = []
    """Workloads that the host does not want (old attempts, unknown tasks); the runner ends them."""
    take_over: list[str] = []
    """Names of nodes whose leftovers are this node's from now on; the runner lists them as its own."""


class VpsOrder(_Message, frozen=True):
    """What an execute order for a VPS says beside the rest; fields as in `models.vps`."""

    hostname: str
    ssh_key_mode: SshKeyMode = SshKeyMode.DISABLED
    authorized_keys: list[str] = []
    host_key: str = ""
    address: str | None = None
    restore: str = ""


class Order(_Message, frozen=True):
    """One thing to do, numbered by the host. Repeating an order changes nothing.

    The fields from `command` to `session` are only of `execute`. Without a `command` it is the image's own.
    `required_cores` is rounded up, parts are in `cores_thousandths`. `grace_seconds`: of an `execute`, before
    SIGKILL whenever it is ended from outside; of a `kill`, this time, in place of that.
    """

    kind: OrderKind
    task_id: IdField
    attempt: Count = 1
    order_id: NonNegative = 0
    command: str = ""
    arguments: list[str] = []
    env_vars: dict[str, str] = {}
    required_cores: NonNegative = 1
    cores_thousandths: NonNegative = 0
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
    capabilities: list[str] = []
    additional_mounts: list[str] = []
    options: ContainerOptions | None = None
    session: VpsOrder | None = None  # set for a VPS, which needs no `command`
    protected_snapshot: NonNegative | None = msgspec.field(default=None, name="spare_snapshot")
    """Of a `stop`: what the VPS starts from next; the snapshot made now replaces another."""
    pull: PullPolicy = PullPolicy.MISSING
    grace_seconds: NonNegative | None = None
    files: TaskFiles | None = None


class OrderAnswer(_Message, frozen=True):
    """Answer to one order. `accepted` False: the runner refuses for good; `detail` says why."""

    order_id: NonNegative
    accepted: bool
    detail: str | None = None

    def __post_init__(self) -> None:
        if self.detail is not None:
            force_setattr(self, "detail", cut(self.detail))


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


def decode(data: bytes | str, kind: type[_Struct]) -> _Struct:
    """Read JSON from the other end; raises InvalidInput with the path of the field that does not fit.

    Nothing else is raised, whatever the data: brackets that are nested too deep fail like any other fault.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the message does not fit: {_shown(error)}") from error
    except RecursionError:
        # Not `from`: the trace of it says nothing and is long.
        raise InvalidInput("the message does not fit: it is nested too deep") from None
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"the body is not JSON: {_shown(error)}") from error


def _shown(error: Exception) -> str:
    return cut(str(error), 300)  # it quotes what does not fit
