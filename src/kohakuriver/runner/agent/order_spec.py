"""What an execute order means on this node: checked here although the host has checked it too. Pure.

The host is trusted to decide what runs, yet a mistake of it must not reach outside what this node offers:
so names, paths, GPUs and mounts are judged again, and every refusal is a sentence for the submitter.
"""

from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path, PurePosixPath

from msgspec import structs

from kohakuriver.models.enums import SshKeyMode
from kohakuriver.models.errors import InvalidInput
from kohakuriver.models.ids import TaskId, parse_task_id
from kohakuriver.models.names import check_env_name, check_environment_name, check_image_reference
from kohakuriver.models.output.places import TIMES_FILE, output_folders
from kohakuriver.models.resources import Gpu, NumaNode
from kohakuriver.models.spec.capabilities import check_capabilities
from kohakuriver.models.spec.mounts import Mount, parse_mount
from kohakuriver.models.spec.signals import DEFAULT_GRACE_SECONDS, MAX_GRACE_SECONDS
from kohakuriver.models.spec.ssh_keys import check_public_key
from kohakuriver.models.spec.targets import is_hostname
from kohakuriver.models.spec.task_files import SCRIPT_PLACE
from kohakuriver.models.vps import FROM_IMAGE, FROM_NEWEST
from kohakuriver.runner.agent.order_options import options_of, takes_image_command
from kohakuriver.runner.engines.contract.spec import (
    ContainerBody,
    CpuBinding,
    ImageChoice,
    UserIds,
    WorkloadSpec,
)
from kohakuriver.runner.engines.contract.vps import VpsSetup
from kohakuriver.runner.local_temp import LOGS, data_folder
from kohakuriver.wire.messages import Order, VpsOrder

_VPS_ARGV = ("session",)  # its first process is the engine's own
_MAX_HOSTNAME = 63
_ROOT = UserIds(0, 0)
_LEAST_MEMORY_BYTES = 16 << 20  # with less, engines start nothing
SHARED = "/shared"
SHARED_DATA = "shared_data"
LOCAL_TEMP = "/local_temp"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What this node has now. `shared_storage`: SHARED_DIR is the one of our cluster."""

    cores: int
    memory_bytes: int
    numa: tuple[NumaNode, ...]
    gpus: tuple[Gpu, ...]
    shared_storage: bool


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """The runner's settings that shape a workload."""

    shared_dir: Path
    local_temp_dir: Path
    additional_mounts: tuple[Mount, ...]
    default_working_dir: str
    tasks_privileged: bool
    user: UserIds
    auto_restore: bool = True
    """Whether a VPS that is started again begins from its newest snapshot."""
    pids_limit: int = 0
    default_memory_limit: float = 0.0
    """Share of the node's memory for a workload that asks for none; 0: no limit."""
    memlock_bytes: int = -1
    """What a workload with GPUs may lock: all that the engine can give; -1: without limit."""

    def local_logs(self, task_id: TaskId, attempt: int) -> Path:
        """Where an attempt's output goes on a node without shared storage."""
        return self.local_temp_dir.joinpath(LOGS, *output_folders(task_id, attempt))

    def shared_logs(self, task_id: TaskId, attempt: int) -> Path:
        return self.shared_dir.joinpath("logs", *output_folders(task_id, attempt))


def order_to_spec(order: Order, facts: NodeFacts, settings: TaskSettings) -> WorkloadSpec:
    """Return everything that the engine needs; raises InvalidInput for what cannot run here."""
    if order.files is not None:
        order = structs.replace(order, command=order.files.command)
    task_id = parse_task_id(order.task_id)
    _check_amounts(order, facts)
    stdout_path, stderr_path = _output_paths(order, task_id, facts, settings)
    memory_bytes = order.required_memory_bytes or _default_memory(order, facts, settings)
    user = _user(order, settings)
    return WorkloadSpec(
        task_id=task_id,
        attempt=order.attempt,
        argv=_argv(order) if order.session is None else _VPS_ARGV,
        env=_environment(order, task_id, user),
        cores=order.cores_thousandths / 1000 if order.cores_thousandths else order.required_cores,
        memory_bytes=memory_bytes,
        binding=_binding(order, facts),
        gpus=_gpus(order, facts),
        working_dir=_working_dir(order, facts, settings),
        user=user,
        mounts=_mounts(order, facts, settings),
        stdout_path=stdout_path,
        stderr_path=stderr_path,
        body=_container(order, user, memory_bytes or facts.memory_bytes, settings),
        output_starts=(settings.shared_dir, settings.local_temp_dir),
        session=_vps_setup(order.session, settings) if order.session is not None else None,
        grace_seconds=_grace(order),
        stdin=order.files.stdin if order.files and not order.files.streams else None,
        stdin_streams=order.files is not None and order.files.streams,
        script=order.files.script if order.files else None,
    )


def _container(order: Order, user: UserIds, memory_bytes: int, settings: TaskSettings) -> ContainerBody:
    """`memory_bytes`: what it may use."""
    takes_command = takes_image_command(order)
    return ContainerBody(
        image=_image(order),
        privileged=settings.tasks_privileged or order.privileged,
        capabilities=check_capabilities(order.capabilities),
        options=options_of(order, user, memory_bytes, settings.memlock_bytes),
        pids_limit=settings.pids_limit,
        image_command=takes_command,
        image_folder=takes_command and order.working_dir is None,
    )


def of_this_version(spec: WorkloadSpec, settings: TaskSettings) -> WorkloadSpec:
    """What an earlier version wrote down, as this one runs it; a spec of this version stays as it is.

    Before, the whole of LOCAL_TEMP_DIR was mounted, and its folder of output masked.
    """
    old = Mount(str(settings.local_temp_dir), LOCAL_TEMP)
    new = Mount(str(data_folder(settings.local_temp_dir)), LOCAL_TEMP)
    return replace(
        spec,
        mounts=tuple(new if mount == old else mount for mount in spec.mounts),
        output_starts=spec.output_starts or (settings.shared_dir, settings.local_temp_dir),
    )


def _vps_setup(wanted: VpsOrder, settings: TaskSettings) -> VpsSetup:
    if not is_hostname(wanted.hostname) or len(wanted.hostname) > _MAX_HOSTNAME:
        raise InvalidInput(f"{wanted.hostname[:80]!r} cannot be a host name", field="hostname")
    restore = wanted.restore
    if restore not in (FROM_NEWEST, FROM_IMAGE) and not (restore.isascii() and restore.isdigit()):
        raise InvalidInput(f"{restore[:40]!r} names no snapshot", field="restore")
    if restore == FROM_NEWEST and not settings.auto_restore:
        restore = FROM_IMAGE
    keys = tuple(check_public_key(key) for key in wanted.authorized_keys)
    has_keys = wanted.ssh_key_mode in (SshKeyMode.UPLOAD, SshKeyMode.GENERATE)
    if has_keys != bool(keys):
        raise InvalidInput(
            f"the SSH mode {wanted.ssh_key_mode.value} does not fit {len(keys)} public keys",
            field="authorized_keys",
        )
    if wanted.ssh_key_mode is not SshKeyMode.DISABLED and not _is_private_key(wanted.host_key):
        raise InvalidInput("a VPS with SSH needs a host key", field="host_key")
    return VpsSetup(
        wanted.hostname, wanted.ssh_key_mode, keys, wanted.host_key, _address(wanted.address), restore
    )


def _is_private_key(text: str) -> bool:
    frame = ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "-----END OPENSSH PRIVATE KEY-----\n")
    return len(text) < 10_000 and text.startswith(frame[0]) and text.endswith(frame[1])


def _address(text: str | None) -> str | None:
    try:
        return None if text is None else str(ip_address(text))
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no address", field="address") from error


def _check_amounts(order: Order, facts: NodeFacts) -> None:
    if order.attempt < 1:
        raise InvalidInput("an execute order needs an attempt number from 1 upward", field="attempt")
    numa = _numa_node(order, facts)
    cores = len(numa.cpus) if numa else facts.cores
    memory_bytes = numa.memory_bytes if numa else facts.memory_bytes
    where = f"NUMA node {numa.id} of this node" if numa else "this node"
    if order.cores_thousandths > 1000 * order.required_cores:
        raise InvalidInput("the order says two numbers of cores", field="cores_thousandths")
    if order.required_cores > cores:
        raise InvalidInput(
            f"{order.required_cores} cores wanted; {where} has {cores}", field="required_cores"
        )
    if (order.required_memory_bytes or 0) > memory_bytes:
        raise InvalidInput(
            f"{order.required_memory_bytes} bytes of memory wanted; {where} has {memory_bytes}",
            field="required_memory_bytes",
        )
    if order.reserved_ip is not None:
        raise InvalidInput("this runner gives out no reserved addresses", field="reserved_ip")


def _grace(order: Order) -> int:
    """An older host says nothing of it."""
    return (
        DEFAULT_GRACE_SECONDS if order.grace_seconds is None else min(order.grace_seconds, MAX_GRACE_SECONDS)
    )


def _default_memory(order: Order, facts: NodeFacts, settings: TaskSettings) -> int:
    """What who asked for no memory may use at most; the ledger holds none for it all the same.

    Bound to a NUMA node, it has no other memory than that one's.
    """
    numa = _numa_node(order, facts)
    share = (numa.memory_bytes if numa else facts.memory_bytes) * settings.default_memory_limit
    return max(int(share), _LEAST_MEMORY_BYTES) if share else 0


def _argv(order: Order) -> tuple[str, ...]:
    if not order.command and not takes_image_command(order):
        raise InvalidInput("an execute order without a registry_image needs a command", field="command")
    has_script = order.files is not None and order.files.script is not None
    program = SCRIPT_PLACE if has_script else order.command
    argv = (*([program] if program else ()), *order.arguments)
    if any("\0" in part for part in argv):
        raise InvalidInput("a command and its arguments cannot hold a NUL character", field="command")
    return argv


def _user(order: Order, settings: TaskSettings) -> UserIds:
    return settings.user if order.session is None else _ROOT


def _environment(order: Order, task_id: TaskId, user: UserIds) -> tuple[tuple[str, str], ...]:
    numa = order.target_numa_node_id
    ours = {
        "KOHAKURIVER_TASK_ID": str(task_id),
        "KOHAKURIVER_ATTEMPT": str(order.attempt),
        "KOHAKURIVER_LOCAL_TEMP_DIR": LOCAL_TEMP,
        "KOHAKURIVER_SHARED_DIR": SHARED,
        "KOHAKURIVER_TARGET_NUMA_NODE": "" if numa is None else str(numa),
    }
    if user.uid != _ROOT.uid:
        ours |= {"HOME": user.home, "USER": user.account, "LOGNAME": user.account}
    for name, value in order.env_vars.items():
        check_env_name(name)
        if "\0" in value:
            raise InvalidInput(f"the value of {name} cannot hold a NUL character", field="env_vars")
    # A name set twice would be read as the first by some programs and as the last by others.
    return tuple((ours | order.env_vars).items())


def _image(order: Order) -> ImageChoice:
    if (order.container_name is None) == (order.registry_image is None):
        raise InvalidInput(
            "an execute order names either an environment (container_name) or a registry_image",
            field="container_name",
        )
    if order.container_name is not None:
        return ImageChoice(environment=check_environment_name(order.container_name))
    return ImageChoice(registry_image=check_image_reference(order.registry_image or ""), pull=order.pull)


def _numa_node(order: Order, facts: NodeFacts) -> NumaNode | None:
    wanted = order.target_numa_node_id
    if wanted is None:
        return None
    found = next((numa for numa in facts.numa if numa.id == wanted), None)
    if found is None:
        known = ", ".join(str(numa.id) for numa in facts.numa) or "none"
        raise InvalidInput(
            f"this node has no NUMA node {wanted}; it has {known}", field="target_numa_node_id"
        )
    return found


def _binding(order: Order, facts: NodeFacts) -> CpuBinding | None:
    numa = _numa_node(order, facts)
    return None if numa is None else CpuBinding(cpus=numa.cpus, memory_nodes=(numa.id,))


def _gpus(order: Order, facts: NodeFacts) -> tuple[Gpu, ...]:
    by_index = {gpu.index: gpu for gpu in facts.gpus}
    unknown = [index for index in order.required_gpus if index not in by_index]
    if unknown:
        known = ", ".join(map(str, by_index)) or "none"
        raise InvalidInput(
            f"this node has no GPU {', '.join(map(str, unknown))}; it has {known}", field="required_gpus"
        )
    if len(set(order.required_gpus)) != len(order.required_gpus):
        raise InvalidInput("a GPU is named twice", field="required_gpus")
    return tuple(by_index[index] for index in order.required_gpus)


def _working_dir(order: Order, facts: NodeFacts, settings: TaskSettings) -> str:
    path = order.working_dir
    if path is None:
        default = settings.default_working_dir
        if default != SHARED or facts.shared_storage:
            return default
        user = _user(order, settings)
        return "/" if user.uid == _ROOT.uid else user.home
    if not path.startswith("/") or len(path) > 4096 or any(ord(char) < 32 for char in path):
        raise InvalidInput(
            f"working directory {path[:100]!r} must be an absolute path without control characters",
            field="working_dir",
        )
    return path


def _mounts(order: Order, facts: NodeFacts, settings: TaskSettings) -> tuple[Mount, ...]:
    mounts = [Mount(str(data_folder(settings.local_temp_dir)), LOCAL_TEMP)]
    if facts.shared_storage:
        mounts.insert(0, Mount(str(settings.shared_dir / SHARED_DATA), SHARED))
    mounts.extend(settings.additional_mounts)
    mounts.extend(parse_mount(text) for text in order.additional_mounts)
    taken: set[str] = set()
    for mount in mounts:
        if mount.destination in taken:
            raise InvalidInput(
                f"mount {mount}: something else is mounted at {mount.destination} on this node",
                field="additional_mounts",
            )
        taken.add(mount.destination)
    return tuple(mounts)


def _output_paths(
    order: Order, task_id: TaskId, facts: NodeFacts, settings: TaskSettings
) -> tuple[Path, Path]:
    local = settings.local_logs(task_id, order.attempt)
    shared = settings.shared_logs(task_id, order.attempt)
    stdout = _output_path(order.stdout_path, local, shared, facts) or local / "stdout.log"
    stderr = _output_path(order.stderr_path, local, shared, facts) or local / "stderr.log"
    if stdout == stderr:
        raise InvalidInput("stdout and stderr must be two files", field="stderr_path")
    if TIMES_FILE in (stdout.name, stderr.name):
        raise InvalidInput(f"output cannot be named {TIMES_FILE}, where its times lie", field="stdout_path")
    return stdout, stderr


def _output_path(text: str | None, local: Path, shared: Path, facts: NodeFacts) -> Path | None:
    """Return the path if it is a file right within a folder of logs of this very attempt."""
    if text is None:
        return None
    path = PurePosixPath(text)
    if path == PurePosixPath(local / path.name):
        return Path(path)
    if path != PurePosixPath(shared / path.name) or path.name in ("", ".", ".."):
        raise InvalidInput(
            f"output path {text[:200]!r} is not within {shared}; is SHARED_DIR the same on host and runner?",
            field="stdout_path",
        )
    if not facts.shared_storage:
        raise InvalidInput(
            f"output was to go to {text[:200]!r}, but this node does not have the cluster's shared storage",
            field="stdout_path",
        )
    return Path(path)
